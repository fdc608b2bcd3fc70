"""A container of a pod to its CRI configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from cri.proto import api_pb2
from nodeagent.node import Node
from nodeagent.pods.pod import Pod
from nodeagent.translate import marks
from nodeagent.translate.env import environment, expand
from nodeagent.translate.resources import container_resources
from nodeagent.translate.security import ImageUser, container_security

_PROPAGATION = {
    "None": api_pb2.PROPAGATION_PRIVATE,
    "HostToContainer": api_pb2.PROPAGATION_HOST_TO_CONTAINER,
    "Bidirectional": api_pb2.PROPAGATION_BIDIRECTIONAL,
}


class Volume(Protocol):
    """A volume as it stands on the node."""

    @property
    def host_path(self) -> Path: ...
    @property
    def read_only(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class Image:
    """`id` is what the runtime calls it; `name` what the manifest calls it."""

    id: str
    name: str
    user: ImageUser = field(default_factory=ImageUser)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a container needs beyond its manifest. Paths are on the node."""

    node: Node
    image: Image
    volumes: Mapping[str, Volume]
    pod_ips: tuple[str, ...]
    hosts: Path
    message: Path


class ContainerRefused(Exception):
    """This container cannot be made as its manifest says. Raised before anything is asked of the runtime."""


def container_config(
    pod: Pod, container: dict[str, Any], attempt: int, backoff: float, around: Surroundings
) -> api_pb2.ContainerConfig:
    """Raises ContainerRefused, SecurityRefused."""
    env = environment(pod, container, around.node, around.pod_ips)
    config = api_pb2.ContainerConfig(
        metadata=api_pb2.ContainerMetadata(name=container["name"], attempt=attempt),
        image=api_pb2.ImageSpec(image=around.image.id, user_specified_image=around.image.name),
        command=[expand(word, env) for word in container.get("command") or []],
        args=[expand(word, env) for word in container.get("args") or []],
        working_dir=container.get("workingDir") or "",
        envs=[api_pb2.KeyValue(key=name, value=value.encode()) for name, value in env.items()],
        mounts=_mounts(container, around),
        labels=marks.container_labels(pod, container, around.node),
        annotations=marks.container_annotations(pod, container, attempt, backoff),
        log_path=f"{container['name']}/{attempt}.log",
        stdin=bool(container.get("stdin")),
        stdin_once=bool(container.get("stdinOnce")),
        tty=bool(container.get("tty")),
        linux=api_pb2.LinuxContainerConfig(
            resources=container_resources(pod, container, around.node),
            security_context=container_security(pod, container, around.image.user, around.node),
        ),
    )
    signal = (container.get("lifecycle") or {}).get("stopSignal")
    if signal:
        config.MergeFrom(_stop_signal(signal))
    return config


def _mounts(container: dict[str, Any], around: Surroundings) -> list[api_pb2.Mount]:
    mounts = [_volume_mount(mount, around) for mount in container.get("volumeMounts") or []]
    taken = {mount.container_path.rstrip("/") for mount in mounts}
    own = {"/etc/hosts": around.hosts, container["terminationMessagePath"]: around.message}
    mounts += [
        api_pb2.Mount(container_path=place, host_path=str(path)) for place, path in own.items() if place not in taken
    ]
    return mounts


def _volume_mount(mount: dict[str, Any], around: Surroundings) -> api_pb2.Mount:
    volume = around.volumes.get(mount["name"])
    if volume is None:
        raise ContainerRefused(f'volume "{mount["name"]}" is not mounted on the node')
    read_only = bool(mount.get("readOnly")) or volume.read_only
    made = api_pb2.Mount(
        container_path=mount["mountPath"],
        host_path=str(volume.host_path),
        readonly=read_only,
        propagation=_PROPAGATION[mount.get("mountPropagation") or "None"],
    )
    wish = mount.get("recursiveReadOnly")
    if_possible = wish == "IfPossible" and around.node.recursive_read_only
    made.recursive_read_only = read_only and (wish == "Enabled" or if_possible)
    return made


def _stop_signal(name: str) -> api_pb2.ContainerConfig:
    try:
        return api_pb2.ContainerConfig(stop_signal=f"SIGNAL_{name}")
    except ValueError:
        raise ContainerRefused(f'lifecycle.stopSignal: "{name}" is not a signal such as SIGTERM') from None
