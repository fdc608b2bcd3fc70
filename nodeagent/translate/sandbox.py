"""A pod to its sandbox's configuration."""

from __future__ import annotations

from pathlib import Path

from cri.proto import api_pb2
from nodeagent.node import Node
from nodeagent.pods.pod import Pod
from nodeagent.pods.qos import cgroup_parent
from nodeagent.translate import marks
from nodeagent.translate.network import dns_config, hostname
from nodeagent.translate.resources import pod_resources
from nodeagent.translate.security import sandbox_security


def log_directory(pod: Pod, node: Node) -> Path:
    """<namespace>_<name>_<uid>: none of the three can hold a "_" or a "/"."""
    return node.log_root / f"{pod.key.namespace}_{pod.key.name}_{pod.uid}"


def sandbox_config(pod: Pod, attempt: int, node: Node) -> api_pb2.PodSandboxConfig:
    return api_pb2.PodSandboxConfig(
        metadata=api_pb2.PodSandboxMetadata(
            name=pod.key.name, namespace=pod.key.namespace, uid=pod.uid, attempt=attempt
        ),
        hostname=hostname(pod),
        log_directory=str(log_directory(pod, node)),
        dns_config=dns_config(pod),
        port_mappings=_port_mappings(pod),
        labels=marks.pod_labels(pod, node),
        annotations=marks.pod_annotations(pod),
        linux=api_pb2.LinuxPodSandboxConfig(
            cgroup_parent=cgroup_parent(pod, root=node.cgroup_root, systemd=node.systemd_cgroups),
            security_context=sandbox_security(pod),
            sysctls={
                each["name"].replace("/", "."): each.get("value") or "" for each in pod.security.get("sysctls") or []
            },
            resources=pod_resources(pod),
        ),
    )


def _port_mappings(pod: Pod) -> list[api_pb2.PortMapping]:
    """Ports of the node that lead to the pod; in the node's network they are the same port already."""
    if pod.spec.get("hostNetwork"):
        return []
    return [
        api_pb2.PortMapping(
            protocol=port["protocol"],
            container_port=port["containerPort"],
            host_port=port["hostPort"],
            host_ip=port.get("hostIP") or "",
        )
        for container in pod.all_containers()
        for port in container.get("ports") or []
        if port.get("hostPort")
    ]
