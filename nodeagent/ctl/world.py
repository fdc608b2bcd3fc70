"""The pods of this node, put together from what the runtime has and what the agent says about them.

The runtime alone knows what is there; the agent alone knows what is wanted, and why it is not there yet. A pod of
either is a pod here. Without an agent, and with any CRI runtime, the picture is the runtime's.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from cri.proto import api_pb2 as api
from nodeagent.api.client import AgentUnreachable
from nodeagent.ctl.session import CALL_SECONDS, Session


@dataclass(slots=True)
class Pod:
    """One life of a pod. Sandboxes and containers come newest first; `document` is the agent's v1.Pod."""

    namespace: str
    name: str
    uid: str
    sandboxes: list[api.PodSandbox] = field(default_factory=list)
    containers: list[api.Container] = field(default_factory=list)
    document: dict[str, Any] | None = None

    @property
    def full_name(self) -> str:
        return f"{self.namespace}/{self.name}"

    @property
    def sandbox(self) -> api.PodSandbox | None:
        return self.sandboxes[0] if self.sandboxes else None

    @property
    def created_at(self) -> int:
        """ns since the epoch; 0 while it has no sandbox."""
        return min((each.created_at for each in self.sandboxes), default=0)

    def latest(self) -> dict[str, api.Container]:
        """The newest container of each name, the order of the manifest first and then of first creation."""
        newest: dict[str, api.Container] = {}
        first: dict[str, int] = {}
        for container in self.containers:
            newest.setdefault(container.metadata.name, container)
            first[container.metadata.name] = container.created_at
        order = {name: index for index, name in enumerate(self._declared())}
        ranked = sorted(newest, key=lambda name: (order.get(name, len(order)), first[name]))
        return {name: newest[name] for name in ranked}

    def _declared(self) -> list[str]:
        spec = (self.document or {}).get("spec", {})
        return [each["name"] for each in [*(spec.get("containers") or []), *(spec.get("initContainers") or [])]]


@dataclass(frozen=True, slots=True)
class World:
    """`agent_silence` says why there is nothing from the agent, empty when it answered."""

    pods: list[Pod]
    agent_silence: str = ""

    def pod_of(self, container: api.Container) -> Pod:
        return next(pod for pod in self.pods if any(each.id == container.id for each in pod.containers))

    def containers(self) -> list[api.Container]:
        return [container for pod in self.pods for container in pod.containers]


async def look(session: Session) -> World:
    """Ask both. Raises CriError; an agent that does not answer is no failure."""
    sandboxes, containers, (documents, silence) = await asyncio.gather(
        session.cri.ListPodSandbox(timeout=CALL_SECONDS),
        session.cri.ListContainers(timeout=CALL_SECONDS),
        _agent_pods(session),
    )
    return World(put_together(sandboxes.items, containers.containers, documents), silence)


async def _agent_pods(session: Session) -> tuple[list[dict[str, Any]], str]:
    try:
        return list((await session.ask_agent("/pods"))["items"]), ""
    except AgentUnreachable as silent:
        return [], str(silent)


def put_together(
    sandboxes: list[api.PodSandbox], containers: list[api.Container], documents: list[dict[str, Any]]
) -> list[Pod]:
    """Pods by namespace and name; the newest first where several lives of one pod are there."""
    pods: dict[tuple[str, str, str], Pod] = {}
    by_sandbox: dict[str, Pod] = {}
    for sandbox in sorted(sandboxes, key=lambda each: each.created_at, reverse=True):
        identity = (sandbox.metadata.namespace, sandbox.metadata.name, sandbox.metadata.uid)
        pod = by_sandbox[sandbox.id] = pods.setdefault(identity, Pod(*identity))
        pod.sandboxes.append(sandbox)
    for container in sorted(containers, key=lambda each: each.created_at, reverse=True):
        if container.pod_sandbox_id in by_sandbox:
            by_sandbox[container.pod_sandbox_id].containers.append(container)
    for document in documents:
        metadata = document["metadata"]
        identity = (metadata["namespace"], metadata["name"], metadata.get("uid", ""))
        pods.setdefault(identity, Pod(*identity)).document = document
    return sorted(pods.values(), key=lambda pod: (pod.namespace, pod.name, -pod.created_at))
