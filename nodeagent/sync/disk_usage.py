"""What a pod takes of the node's disk, against what its manifest allows: the kubelet's rules and words for it.

    volumes     spec.volumes[].emptyDir.sizeLimit, of those on disk
    containers  resources.limits.ephemeral-storage: a container's own layer and its logs, rotated ones included
    the pod     all of these together against the sum of its containers' limits

Source: pkg/kubelet/eviction (localStorageEviction). Only what has a limit is measured.
"""

from __future__ import annotations

from pathlib import Path

from cri.client import CriClient
from cri.proto import api_pb2
from nodeagent.node import Node
from nodeagent.pods import quantity
from nodeagent.pods.pod import Pod
from nodeagent.translate import marks
from nodeagent.translate.sandbox import log_directory
from nodeagent.volumes import empty_dir
from nodeagent.volumes.deadline import within
from nodeagent.volumes.layout import EMPTY_DIR, Layout
from runtime.linux.treesize import measure

EPHEMERAL = "ephemeral-storage"


class DiskUsage:
    """Layers are measured by the runtime, the rest here."""

    def __init__(self, cri: CriClient, node: Node, layout: Layout) -> None:
        self._cri = cri
        self._node = node
        self._layout = layout

    async def excess(self, pod: Pod) -> str:
        """What of it is too much, in words; nothing when all is well. Raises CriError, OSError.

        Takes as long as the files are many; on a file system that hangs, for ever: the caller goes on without it.
        """
        sizes = empty_dir.limits(pod.document)
        volumes: dict[str, int] = {}
        for name, limit in sizes.items():
            if limit:
                volumes[name] = await self._volume(pod, name, enough=limit)
                if volumes[name] > limit:
                    return f'Usage of EmptyDir volume "{name}" exceeds the limit "{_size_limit(pod, name)}".'
        limits = {each["name"]: limit for each in pod.all_containers() if (limit := _limit(each))}
        if not limits:
            return ""
        used = await self._containers(pod)
        rest = [await self._volume(pod, name) for name in sizes if name not in volumes]
        total = sum(used.values()) + sum(volumes.values()) + sum(rest)
        if total > (allowed := pod.at_once(lambda each: limits.get(each["name"], 0))):
            return f"Pod ephemeral local storage usage exceeds the total limit of containers {allowed}."
        for name, limit in limits.items():
            if used.get(name, 0) > limit:
                asked = pod.container(name)["resources"]["limits"][EPHEMERAL]
                return f'Container {name} exceeded its local ephemeral storage limit "{asked}".'
        return ""

    async def _volume(self, pod: Pod, name: str, enough: int | None = None) -> int:
        return await within(None, _bytes, self._layout.volume(pod.uid, EMPTY_DIR, name), enough)

    async def _containers(self, pod: Pod) -> dict[str, int]:
        wanted = {marks.POD_UID: pod.uid, marks.NODE: self._node.name}
        answer = await self._cri.ListContainerStats(filter=api_pb2.ContainerStatsFilter(label_selector=wanted))
        used = {each.attributes.metadata.name: each.writable_layer.used_bytes.value for each in answer.stats}
        logs = log_directory(pod, self._node)
        return {name: layer + await within(None, _bytes, logs / name) for name, layer in used.items()}


def _bytes(path: Path, enough: int | None = None) -> int:
    try:
        return measure(path, enough=enough)[0]
    except FileNotFoundError:  # not there yet, or not any more
        return 0


def _limit(container: dict[str, object]) -> int:
    """In bytes; 0 for none."""
    resources = container["resources"]
    assert isinstance(resources, dict)
    return quantity.whole((resources.get("limits") or {}).get(EPHEMERAL) or 0)


def _size_limit(pod: Pod, name: str) -> str:
    """As the manifest has it."""
    volume = next(each for each in pod.spec["volumes"] if each["name"] == name)
    return str(volume["emptyDir"]["sizeLimit"])
