"""A CRI runtime in memory, for failures that a real one does not have on demand: errors, hangs, lost containers.

It speaks the interface's own messages and keeps its rules (states, idempotence, events with full status), but nothing
runs: a test says when a container ends. What a runtime really does is tested on a real one, in tests/node.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from typing import Any

from google.protobuf.message import Message

from cri.client import CriError
from cri.proto import api_pb2
from cri.proto.services import methods


class FakeCri:
    """`fail[method]` are errors (code, details) that its next calls answer with; `hang[method]` holds its calls up."""

    def __init__(self) -> None:
        self.address = "fake"
        self.sandboxes: dict[str, api_pb2.PodSandboxStatus] = {}
        self.containers: dict[str, tuple[str, api_pb2.ContainerStatus]] = {}
        self.configs: dict[str, api_pb2.ContainerConfig] = {}
        self.images = {"localhost/busybox:1"}
        self.fail: dict[str, list[tuple[str, str]]] = defaultdict(list)
        self.hang: dict[str, asyncio.Event] = {}
        self.calls: list[tuple[str, Message]] = []
        #: Bytes in containers' own layers, by name.
        self.layers: dict[str, int] = {}
        self.exec_codes: dict[str, int] = {}
        self._ids = itertools.count(1)
        self._listeners: list[asyncio.Queue[api_pb2.ContainerEventResponse | None]] = []

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = methods().get(name)
        if method is None:
            raise AttributeError(name)

        async def call(message: Message | None = None, /, *, timeout: float | None = 0, **fields: Any) -> Any:
            request = message if message is not None else method.request(**fields)
            self.calls.append((name, request))
            if name in self.hang:
                await self.hang[name].wait()
            if self.fail[name]:
                raise CriError(name, *self.fail[name].pop(0))
            answer = getattr(self, f"_{name}", lambda _: method.response())(request)
            return answer

        return call

    def called(self, name: str) -> list[Any]:
        return [request for method, request in self.calls if method == name]

    def named(self, name: str) -> list[api_pb2.ContainerStatus]:
        """Every container of that name, oldest first."""
        return [status for _, status in self.containers.values() if status.metadata.name == name]

    def end(self, name: str, exit_code: int = 0, reason: str = "") -> None:
        """The running container of that name ends by itself."""
        id, (sandbox_id, status) = next(
            (id, entry)
            for id, entry in reversed(self.containers.items())
            if entry[1].metadata.name == name and entry[1].state == api_pb2.CONTAINER_RUNNING
        )
        status.state, status.finished_at, status.exit_code = api_pb2.CONTAINER_EXITED, time.time_ns(), exit_code
        status.reason = reason or ("Error" if exit_code else "Completed")
        self._publish(id, sandbox_id, api_pb2.CONTAINER_STOPPED_EVENT)

    def drop_streams(self) -> None:
        for listener in self._listeners:
            listener.put_nowait(None)

    async def GetContainerEvents(
        self, message: Message | None = None, /, *, timeout: float | None = None
    ) -> AsyncIterator[api_pb2.ContainerEventResponse]:
        self.calls.append(("GetContainerEvents", message or api_pb2.GetEventsRequest()))
        if self.fail["GetContainerEvents"]:
            raise CriError("GetContainerEvents", *self.fail["GetContainerEvents"].pop(0))
        listener: asyncio.Queue[api_pb2.ContainerEventResponse | None] = asyncio.Queue()
        self._listeners.append(listener)
        try:
            while (event := await listener.get()) is not None:
                yield event
            raise CriError("GetContainerEvents", "UNAVAILABLE", "the stream was dropped")
        finally:
            self._listeners.remove(listener)

    def _publish(self, id: str, sandbox_id: str, kind: api_pb2.ContainerEventType) -> None:
        event = api_pb2.ContainerEventResponse(container_id=id, container_event_type=kind)
        if sandbox_id in self.sandboxes:
            event.pod_sandbox_status.CopyFrom(self.sandboxes[sandbox_id])
        for listener in self._listeners:
            listener.put_nowait(event)

    def _RunPodSandbox(self, request: api_pb2.RunPodSandboxRequest) -> Message:
        id = f"sandbox-{next(self._ids)}"
        config = request.config
        status = api_pb2.PodSandboxStatus(
            id=id, metadata=config.metadata, created_at=time.time_ns(), labels=config.labels,
            annotations=config.annotations,
        )  # fmt: skip
        status.network.ip = "10.0.0.1"
        self.sandboxes[id] = status
        return api_pb2.RunPodSandboxResponse(pod_sandbox_id=id)

    def _StopPodSandbox(self, request: api_pb2.StopPodSandboxRequest) -> Message:
        if request.pod_sandbox_id in self.sandboxes:
            self.sandboxes[request.pod_sandbox_id].state = api_pb2.SANDBOX_NOTREADY
        return api_pb2.StopPodSandboxResponse()

    def _RemovePodSandbox(self, request: api_pb2.RemovePodSandboxRequest) -> Message:
        self.sandboxes.pop(request.pod_sandbox_id, None)
        self.containers = {id: each for id, each in self.containers.items() if each[0] != request.pod_sandbox_id}
        return api_pb2.RemovePodSandboxResponse()

    def _ListPodSandbox(self, request: api_pb2.ListPodSandboxRequest) -> Message:
        items = [
            api_pb2.PodSandbox(
                id=each.id, metadata=each.metadata, state=each.state, created_at=each.created_at, labels=each.labels,
                annotations=each.annotations,
            )
            for each in self.sandboxes.values()
            if _matches(each.labels, request.filter.label_selector)
        ]  # fmt: skip
        return api_pb2.ListPodSandboxResponse(items=items)

    def _PodSandboxStatus(self, request: api_pb2.PodSandboxStatusRequest) -> Message:
        if request.pod_sandbox_id not in self.sandboxes:
            raise CriError("PodSandboxStatus", "NOT_FOUND", request.pod_sandbox_id)
        inside = [status for sandbox, status in self.containers.values() if sandbox == request.pod_sandbox_id]
        return api_pb2.PodSandboxStatusResponse(
            status=self.sandboxes[request.pod_sandbox_id], containers_statuses=inside, timestamp=time.time_ns()
        )

    def _CreateContainer(self, request: api_pb2.CreateContainerRequest) -> Message:
        id, config = f"container-{next(self._ids)}", request.config
        self.configs[id] = config
        self.containers[id] = (
            request.pod_sandbox_id,
            api_pb2.ContainerStatus(
                id=id, metadata=config.metadata, created_at=time.time_ns(), image=config.image, labels=config.labels,
                annotations=config.annotations, log_path=f"{request.sandbox_config.log_directory}/{config.log_path}",
            ),
        )  # fmt: skip
        return api_pb2.CreateContainerResponse(container_id=id)

    def _StartContainer(self, request: api_pb2.StartContainerRequest) -> Message:
        sandbox_id, status = self.containers[request.container_id]
        status.state, status.started_at = api_pb2.CONTAINER_RUNNING, time.time_ns()
        self._publish(request.container_id, sandbox_id, api_pb2.CONTAINER_STARTED_EVENT)
        return api_pb2.StartContainerResponse()

    def _StopContainer(self, request: api_pb2.StopContainerRequest) -> Message:
        status = self.containers[request.container_id][1]
        if status.state == api_pb2.CONTAINER_RUNNING:
            status.state, status.finished_at, status.exit_code = api_pb2.CONTAINER_EXITED, time.time_ns(), 143
        return api_pb2.StopContainerResponse()

    def _RemoveContainer(self, request: api_pb2.RemoveContainerRequest) -> Message:
        self.containers.pop(request.container_id, None)
        return api_pb2.RemoveContainerResponse()

    def _ListContainers(self, request: api_pb2.ListContainersRequest) -> Message:
        items = [
            api_pb2.Container(id=id, pod_sandbox_id=sandbox, metadata=each.metadata, state=each.state)
            for id, (sandbox, each) in self.containers.items()
            if _matches(each.labels, request.filter.label_selector)
        ]
        return api_pb2.ListContainersResponse(containers=items)

    def _ContainerStatus(self, request: api_pb2.ContainerStatusRequest) -> Message:
        if request.container_id not in self.containers:
            raise CriError("ContainerStatus", "NOT_FOUND", request.container_id)
        return api_pb2.ContainerStatusResponse(status=self.containers[request.container_id][1])

    def _ListContainerStats(self, request: api_pb2.ListContainerStatsRequest) -> Message:
        running = [
            (id, each)
            for id, (_, each) in self.containers.items()
            if each.state == api_pb2.CONTAINER_RUNNING and _matches(each.labels, request.filter.label_selector)
        ]
        return api_pb2.ListContainerStatsResponse(
            stats=[
                api_pb2.ContainerStats(
                    attributes=api_pb2.ContainerAttributes(id=id, metadata=each.metadata),
                    writable_layer={"used_bytes": {"value": self.layers.get(each.metadata.name, 0)}},
                )
                for id, each in running
            ]
        )

    def _ExecSync(self, request: api_pb2.ExecSyncRequest) -> Message:
        return api_pb2.ExecSyncResponse(exit_code=self.exec_codes.get(request.cmd[0], 0), stderr=b"no such thing")

    def _ImageStatus(self, request: api_pb2.ImageStatusRequest) -> Message:
        name = request.image.image.removeprefix("id-of-")
        if name not in self.images:
            return api_pb2.ImageStatusResponse()
        return api_pb2.ImageStatusResponse(image=api_pb2.Image(id=f"id-of-{name}"))

    def _PullImage(self, request: api_pb2.PullImageRequest) -> Message:
        self.images.add(request.image.image)
        return api_pb2.PullImageResponse(image_ref=f"id-of-{request.image.image}")


def _matches(labels: Any, wanted: Any) -> bool:
    return all(labels.get(key) == value for key, value in wanted.items())
