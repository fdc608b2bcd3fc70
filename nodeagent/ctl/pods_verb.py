"""nodectl pods: what the agent wants and what the runtime has, in one list."""

from __future__ import annotations

import argparse
import asyncio
import time

from cri.client import CriError
from cri.proto import api_pb2 as api
from nodeagent.api.client import AgentUnreachable
from nodeagent.ctl import amounts, colours
from nodeagent.ctl.output import Column, Document
from nodeagent.ctl.pod_state import State, state_of
from nodeagent.ctl.session import CALL_SECONDS, Session
from nodeagent.ctl.targets import find_pod, short
from nodeagent.ctl.world import Pod, look

#: Calls under way.
AT_ONCE = 16


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("pod", nargs="*", metavar="POD", help="only these")
    parser.add_argument("-n", "--namespace", default="", help="only of this namespace")


def columns(now: int) -> list[Column]:
    return [
        Column("NAMESPACE", "namespace"),
        Column("NAME", "name"),
        Column("READY", "ready"),
        Column("STATUS", "status", style=colours.state),
        Column("RESTARTS", "restarts", right=True),
        Column("AGE", lambda pod: amounts.age(amounts.nanoseconds(pod["createdAt"] or ""), now)),
        Column("IP", "ip"),
        Column("SANDBOX", lambda pod: short(pod["sandboxId"] or ""), wide=True),
        Column("UID", "uid", wide=True),
        Column("QOS", "qosClass", wide=True),
        Column("CONTAINERS", lambda pod: ",".join(each["name"] for each in pod["containers"]), wide=True),
    ]


async def run(session: Session, given: argparse.Namespace) -> int:
    world = await look(session)
    pods = [find_pod(world, word) for word in given.pod] if given.pod else world.pods
    pods = [pod for pod in pods if given.namespace in ("", pod.namespace)]
    documents = await _documents(session, pods)
    shown = columns(time.time_ns())
    if any(pod["message"] for pod in documents):
        shown.append(Column("WHY", "message"))
    problems = await _problems(session)
    session.output.items("PodList", shown, documents, problems=problems)
    if world.agent_silence:
        session.note(f"note: this is what the runtime knows; {world.agent_silence}")
    for problem in problems:
        place = f"{problem['file']}:{problem['line']}" if problem["line"] else problem["file"]
        kind = "error" if problem["fatal"] else "warning"
        session.note(f"{kind}: manifest {': '.join(filter(None, (place, problem['path'], problem['reason'])))}")
    return 0


async def _problems(session: Session) -> list[Document]:
    """Manifests that make no pod."""
    try:
        return list((await session.ask_agent("/problems"))["items"])
    except AgentUnreachable:
        return []


async def _documents(session: Session, pods: list[Pod]) -> list[Document]:
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(pod: Pod) -> Document:
        async with gate:
            return document(pod, state_of(pod), await _address(session, pod))

    return list(await asyncio.gather(*map(one, pods)))


async def _address(session: Session, pod: Pod) -> str | None:
    """The agent's word, or else the runtime's; none for a sandbox that goes while we ask."""
    told: str | None = (pod.document or {}).get("status", {}).get("podIP")
    if told or pod.sandbox is None or pod.sandbox.state != api.SANDBOX_READY:
        return told
    try:
        answer = await session.cri.PodSandboxStatus(pod_sandbox_id=pod.sandbox.id, timeout=CALL_SECONDS)
    except CriError as error:
        if error.code == "NOT_FOUND":
            return None
        raise
    return answer.status.network.ip or None


def document(pod: Pod, state: State, ip: str | None) -> Document:
    """One pod of `-o json`; the names of its keys do not change."""
    return {
        "namespace": pod.namespace,
        "name": pod.name,
        "uid": pod.uid,
        "status": state.status,
        "message": state.message,
        "ready": f"{state.ready}/{state.total}",
        "restarts": state.restarts,
        "ip": ip,
        "qosClass": (pod.document or {}).get("status", {}).get("qosClass"),
        "createdAt": amounts.timestamp(pod.created_at),
        "sandboxId": pod.sandbox.id if pod.sandbox else None,
        "containers": [
            {
                "name": name,
                "id": each.id,
                "state": api.ContainerState.Name(each.state).removeprefix("CONTAINER_").lower(),
                "image": each.image.user_specified_image or each.image.image,
            }
            for name, each in pod.latest().items()
        ],
    }
