"""nodectl ps: containers, and how those ended that have."""

from __future__ import annotations

import argparse
import asyncio
import time

from cri.client import CriError
from cri.proto import api_pb2 as api
from nodeagent.ctl import amounts, colours
from nodeagent.ctl.completers import completed, pods
from nodeagent.ctl.output import Column, Document
from nodeagent.ctl.session import CALL_SECONDS, Session
from nodeagent.ctl.targets import find_pod, short
from nodeagent.ctl.world import Pod, look

AT_ONCE = 16


def arguments(parser: argparse.ArgumentParser) -> None:
    completed(parser.add_argument("pod", nargs="?", default="", help="only of this pod"), pods)
    parser.add_argument("-a", "--all", action="store_true", help="those too that do not run")
    parser.add_argument("-q", "--quiet", action="store_true", help="ids only")


def columns(now: int) -> list[Column]:
    return [
        Column("CONTAINER", lambda each: short(each["id"])),
        Column("POD", lambda each: f"{each['namespace']}/{each['pod']}"),
        Column("NAME", "name"),
        Column("STATE", _state, style=colours.state),
        Column("ATTEMPT", "attempt", right=True),
        Column("AGE", lambda each: amounts.age(amounts.nanoseconds(each["createdAt"] or ""), now)),
        Column("IMAGE", "image"),
        Column("FINISHED", lambda each: _ago(each["finishedAt"], now), wide=True),
        Column("MESSAGE", "message", wide=True),
        Column("SANDBOX", lambda each: short(each["sandboxId"]), wide=True),
    ]


async def run(session: Session, given: argparse.Namespace) -> int:
    world = await look(session)
    chosen = [find_pod(world, given.pod)] if given.pod else world.pods
    pairs = [
        (pod, each) for pod in chosen for each in pod.containers if given.all or each.state == api.CONTAINER_RUNNING
    ]
    if given.quiet:
        session.output.line(*(each.id for _, each in pairs))
        return 0
    endings = await _endings(session, [each for _, each in pairs])
    documents = [document(pod, each, endings.get(each.id)) for pod, each in pairs]
    session.output.items("ContainerList", columns(time.time_ns()), documents)
    return 0


async def _endings(session: Session, containers: list[api.Container]) -> dict[str, api.ContainerStatus]:
    """The list does not say how a container ended: each one is asked for."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def ask(id: str) -> api.ContainerStatus | None:
        async with gate:
            try:
                answer = await session.cri.ContainerStatus(container_id=id, timeout=CALL_SECONDS)
            except CriError as error:
                if error.code == "NOT_FOUND":
                    return None
                raise
            status: api.ContainerStatus = answer.status
            return status

    found = await asyncio.gather(*(ask(each.id) for each in containers if each.state == api.CONTAINER_EXITED))
    return {status.id: status for status in found if status is not None}


def document(pod: Pod, container: api.Container, ending: api.ContainerStatus | None) -> Document:
    """One container of `-o json`; the names of its keys do not change."""
    return {
        "id": container.id,
        "name": container.metadata.name,
        "namespace": pod.namespace,
        "pod": pod.name,
        "sandboxId": container.pod_sandbox_id,
        "state": api.ContainerState.Name(container.state).removeprefix("CONTAINER_").lower(),
        "attempt": container.metadata.attempt,
        "image": container.image.user_specified_image or container.image.image,
        "imageId": container.image_ref,
        "createdAt": amounts.timestamp(container.created_at),
        "finishedAt": amounts.timestamp(ending.finished_at) if ending else None,
        "exitCode": ending.exit_code if ending else None,
        "reason": ending.reason if ending else None,
        "message": ending.message if ending else None,
    }


def _state(each: Document) -> str:
    word = str(each["state"]).capitalize()
    if each["exitCode"] is None:
        return word
    reason = each["reason"] if each["reason"] not in ("Completed", "Error", "") else ""
    return f"{word} ({each['exitCode']})" + (f" {reason}" if reason else "")


def _ago(time_text: str | None, now: int) -> str | None:
    return f"{amounts.age(amounts.nanoseconds(time_text), now)} ago" if time_text else None
