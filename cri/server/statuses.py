"""Sandboxes and containers as the interface's status messages, and the filters of the list calls."""

from __future__ import annotations

from collections.abc import Mapping

from cri.proto import api_pb2 as api
from cri.server.pods import Container, Sandbox
from cri.server.specs.signals import interface_signal


def sandbox_status(sandbox: Sandbox) -> api.PodSandboxStatus:
    """PodSandboxStatus. The addresses are of the pod's own network; with the host's there are none to tell."""
    config = sandbox.config
    status = api.PodSandboxStatus(
        id=sandbox.id,
        metadata=config.metadata,
        state=sandbox.state,
        created_at=sandbox.created_at,
        labels=config.labels,
        annotations=config.annotations,
        runtime_handler=sandbox.runtime_handler,
    )
    status.linux.namespaces.options.CopyFrom(sandbox.options)
    status.network.SetInParent()
    if sandbox.ready and sandbox.ips:
        status.network.ip = sandbox.ips[0]
        status.network.additional_ips.extend(api.PodIP(ip=ip) for ip in sandbox.ips[1:])
    return status


def listed_sandbox(sandbox: Sandbox) -> api.PodSandbox:
    """The shorter form of ListPodSandbox."""
    return api.PodSandbox(
        id=sandbox.id,
        metadata=sandbox.config.metadata,
        state=sandbox.state,
        created_at=sandbox.created_at,
        labels=sandbox.config.labels,
        annotations=sandbox.config.annotations,
        runtime_handler=sandbox.runtime_handler,
    )


def container_status(container: Container) -> api.ContainerStatus:
    """ContainerStatus."""
    config = container.config
    status = api.ContainerStatus(
        id=container.id,
        metadata=config.metadata,
        state=container.state,
        created_at=container.created_at,
        started_at=container.started_at,
        finished_at=container.finished_at,
        exit_code=container.exit_code,
        image=config.image,
        image_ref=container.image_ref,
        image_id=container.image_id,
        reason=container.reason,
        message=container.message,
        labels=config.labels,
        annotations=config.annotations,
        mounts=config.mounts,
        log_path=container.spec.log_path,
        stop_signal=interface_signal(container.stop_signal),
    )
    status.image.image = container.image_name
    status.resources.linux.CopyFrom(container.resources)
    status.user.linux.CopyFrom(container.user)
    return status


def container_statuses(sandbox: Sandbox) -> list[api.ContainerStatus]:
    """Of all containers of a pod, the newest first.

    The order is not in the interface, but with EventedPLEG the kubelet takes the first one of a name for the present
    one (kuberuntime_manager.go, GetPodStatus): the oldest first, it would start what runs again.
    """
    return [container_status(container) for container in reversed(list(sandbox.containers.values()))]


def listed_container(container: Container) -> api.Container:
    """The shorter form of ListContainers: one message per container, brought up to date when it is asked for."""
    container.listed.state = container.state
    return container.listed


def labels_match(labels: Mapping[str, str], selector: Mapping[str, str]) -> bool:
    """Whether every label of the selector is there with the same value."""
    return all(labels.get(key) == value for key, value in selector.items())
