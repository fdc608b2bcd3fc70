"""What the runtime says of one pod. All that the agent knows of running pods is read here, each time anew.

Nothing of it is kept between two looks, so a restarted agent, a restarted runtime and a missed event all come to the
same: look again. Times are nanoseconds since the epoch, 0 for what has not happened.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Self

from cri.client import CriClient, CriError
from cri.proto import api_pb2
from nodeagent.node import Node
from nodeagent.pods.pod import Key, Pod
from nodeagent.translate import marks

SECOND = 1_000_000_000
DEFAULT_GRACE = 30
#: Seconds for the list of all sandboxes; a runtime that does not give it hangs.
LIST_TIMEOUT = 30.0


class State(Enum):
    """Of a container, as the CRI has it."""

    CREATED = api_pb2.CONTAINER_CREATED
    RUNNING = api_pb2.CONTAINER_RUNNING
    EXITED = api_pb2.CONTAINER_EXITED
    UNKNOWN = api_pb2.CONTAINER_UNKNOWN


@dataclass(frozen=True, slots=True)
class Sandbox:
    """One sandbox of a pod; `created_at` in ns since the epoch."""

    id: str
    key: Key
    uid: str
    attempt: int
    ready: bool
    created_at: int
    ips: tuple[str, ...] = ()
    annotations: dict[str, str] = field(default_factory=dict)

    def belongs_to(self, pod: Pod | None) -> bool:
        """The same life of the same pod: a changed manifest makes another one."""
        return pod is not None and (self.uid, self.annotations.get(marks.DIGEST)) == (pod.uid, pod.digest)

    @property
    def grace(self) -> int:
        """Seconds. The manifest may be gone, so what it said came along as an annotation."""
        text = self.annotations.get(marks.GRACE, "")
        return int(text) if text.isdecimal() else DEFAULT_GRACE


@dataclass(frozen=True, slots=True)
class Container:
    """`image` is the manifest's name for it, `image_id` the runtime's."""

    id: str
    sandbox_id: str
    name: str
    attempt: int
    state: State
    created_at: int
    started_at: int = 0
    finished_at: int = 0
    exit_code: int = 0
    reason: str = ""
    message: str = ""
    image: str = ""
    image_id: str = ""
    log_path: str = ""
    annotations: dict[str, str] = field(default_factory=dict)

    @property
    def ran(self) -> float:
        """Seconds between start and end."""
        return max(self.finished_at - self.started_at, 0) / SECOND if self.started_at else 0.0

    @property
    def backoff(self) -> float:
        """Seconds that are to pass between its end and the next start."""
        try:
            return float(self.annotations.get(marks.BACKOFF, "0"))
        except ValueError:
            return 0.0

    @property
    def role(self) -> str:
        return self.annotations.get(marks.ROLE, "main")

    @property
    def order(self) -> int:
        text = self.annotations.get(marks.ORDER, "")
        return int(text) if text.isdecimal() else 0

    @property
    def pre_stop(self) -> dict[str, Any] | None:
        """The lifecycle.preStop handler of its manifest."""
        text = self.annotations.get(marks.PRE_STOP)
        return json.loads(text) if text else None

    @classmethod
    def of(cls, status: api_pb2.ContainerStatus, sandbox_id: str) -> Self:
        return cls(
            id=status.id,
            sandbox_id=sandbox_id,
            name=status.metadata.name,
            attempt=status.metadata.attempt,
            state=State(status.state),
            created_at=status.created_at,
            started_at=max(status.started_at, 0),
            finished_at=max(status.finished_at, 0),
            exit_code=status.exit_code,
            reason=status.reason,
            message=status.message,
            image=status.image.user_specified_image or status.image.image,
            image_id=status.image_id or status.image_ref,
            log_path=status.log_path,
            annotations=dict(status.annotations),
        )


@dataclass(frozen=True, slots=True)
class Observed:
    """Newest first, both."""

    sandboxes: tuple[Sandbox, ...] = ()
    containers: tuple[Container, ...] = ()

    def of(self, sandboxes: Iterable[Sandbox]) -> Observed:
        """Only these sandboxes and what is in them."""
        kept = tuple(sandboxes)
        ids = {sandbox.id for sandbox in kept}
        return Observed(kept, tuple(each for each in self.containers if each.sandbox_id in ids))

    def life_of(self, pod: Pod | None) -> Observed:
        return self.of(sandbox for sandbox in self.sandboxes if sandbox.belongs_to(pod))

    def others_than(self, pod: Pod | None) -> Observed:
        return self.of(sandbox for sandbox in self.sandboxes if not sandbox.belongs_to(pod))

    def all_of(self, name: str) -> list[Container]:
        """Every container of that name that is still there, newest first."""
        return [each for each in self.containers if each.name == name]

    def latest(self, name: str) -> Container | None:
        return next((each for each in self.containers if each.name == name), None)


def sandbox_of(item: api_pb2.PodSandbox | api_pb2.PodSandboxStatus) -> Sandbox:
    ips: tuple[str, ...] = ()
    if isinstance(item, api_pb2.PodSandboxStatus) and item.network.ip:
        ips = (item.network.ip, *(each.ip for each in item.network.additional_ips))
    metadata = item.metadata
    return Sandbox(
        id=item.id,
        key=Key(metadata.namespace, metadata.name),
        uid=metadata.uid,
        attempt=metadata.attempt,
        ready=item.state == api_pb2.SANDBOX_READY,
        created_at=item.created_at,
        ips=ips,
        annotations=dict(item.annotations),
    )


async def observe_all(cri: CriClient, node: Node) -> list[Sandbox]:
    """Every sandbox that this node's agent has made. Raises CriError."""
    ours = api_pb2.PodSandboxFilter(label_selector={marks.NODE: node.name})
    answer = await cri.ListPodSandbox(filter=ours, timeout=LIST_TIMEOUT)
    return [sandbox_of(item) for item in answer.items]


async def observe(cri: CriClient, key: Key, node: Node) -> Observed:
    """One pod. Raises CriError; what vanishes while it is being looked at is left out."""
    wanted = marks.selector(key, node)
    listed = await cri.ListPodSandbox(filter=api_pb2.PodSandboxFilter(label_selector=wanted))
    sandboxes: list[Sandbox] = []
    containers: list[Container] = []
    for item in listed.items:
        status = await _or_none(cri.PodSandboxStatus(pod_sandbox_id=item.id))
        if status is None:
            continue
        sandboxes.append(sandbox_of(status.status))
        # Runtimes that report events put the containers beside their sandbox and say when.
        found = status.containers_statuses if status.timestamp else await _statuses(cri, item.id)
        containers.extend(Container.of(each, item.id) for each in found)
    sandboxes.sort(key=lambda each: (each.attempt, each.created_at), reverse=True)
    containers.sort(key=lambda each: (each.attempt, each.created_at), reverse=True)
    return Observed(tuple(sandboxes), tuple(containers))


async def _statuses(cri: CriClient, sandbox_id: str) -> list[api_pb2.ContainerStatus]:
    listed = await cri.ListContainers(filter=api_pb2.ContainerFilter(pod_sandbox_id=sandbox_id))
    answers = [await _or_none(cri.ContainerStatus(container_id=each.id)) for each in listed.containers]
    return [answer.status for answer in answers if answer is not None]


async def _or_none(call: Any) -> Any:
    try:
        return await call
    except CriError as error:
        if error.code == "NOT_FOUND":
            return None
        raise
