"""nodectl events: the story of the pods as the agent tells it; with --runtime, what the runtime says of containers."""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

from cri.proto import api_pb2 as api
from nodeagent.ctl import amounts
from nodeagent.ctl.output import JSON, Column, Document
from nodeagent.ctl.session import Session
from nodeagent.ctl.targets import short

#: Seconds that one question to the agent may wait for news.
WAIT = 30


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("pod", nargs="?", default="", help="only of this pod (name or namespace/name)")
    parser.add_argument("-f", "--follow", "-w", "--watch", action="store_true", help="go on as things happen")
    parser.add_argument("--runtime", action="store_true", help="containers' events, from the runtime, as they happen")


def columns(now: int) -> list[Column]:
    return [
        Column("LAST SEEN", lambda event: amounts.age(event["lastTimestamp"], now)),
        Column("COUNT", "count", right=True),
        Column("TYPE", "type"),
        Column("REASON", "reason"),
        Column("POD", lambda event: f"{event['namespace']}/{event['pod']}"),
        Column("MESSAGE", "message"),
    ]


async def run(session: Session, given: argparse.Namespace) -> int:
    if given.runtime:
        return await _runtime(session, given.pod)
    items = await _ask(session, given.pod, 0, 0)
    if not given.follow:
        session.output.items("EventList", columns(time.time_ns()), [_public(item) for item in items])
        return 0
    last = 0
    while True:
        for item in items:
            last = max(last, item["number"])
            _tell(session, _public(item))
        items = await _ask(session, given.pod, last, WAIT)


async def _ask(session: Session, pod: str, since: int, wait: int) -> list[Document]:
    answer = await session.ask_agent(f"/events?since={since}&wait={wait}", timeout=wait + 10.0)
    return [each for each in answer["items"] if pod in ("", each["pod"], f"{each['namespace']}/{each['pod']}")]


def _public(item: Document) -> Document:
    return {key: value for key, value in item.items() if key != "number"}


def _tell(session: Session, event: dict[str, Any]) -> None:
    """A line for each, JSON too: a stream has no end to close a list with."""
    if session.output.format == JSON:
        return session.output.line(json.dumps(event, ensure_ascii=False))
    moment = (amounts.timestamp(event["lastTimestamp"]) or "-")[:19]
    pod = f"{event['namespace']}/{event['pod']}"
    session.output.line(f"{moment}Z  {event['type']:<7}  {event['reason']}  {pod}  {event['message']}")


async def _runtime(session: Session, pod: str) -> int:
    """GetContainerEvents, until Ctrl-C."""
    async for event in session.cri.GetContainerEvents(timeout=None):
        metadata = event.pod_sandbox_status.metadata
        if pod not in ("", metadata.name, f"{metadata.namespace}/{metadata.name}"):
            continue
        kind = api.ContainerEventType.Name(event.container_event_type).split("_")[1].capitalize()
        container = next((each for each in event.containers_statuses if each.id == event.container_id), None)
        what = f"container {container.metadata.name}" if container else "sandbox"
        ended = f", exit code {container.exit_code}" if container and kind == "Stopped" else ""
        _tell(
            session,
            {
                "lastTimestamp": event.created_at,
                "type": "Runtime",
                "reason": kind,
                "namespace": metadata.namespace,
                "pod": metadata.name,
                "message": f"{what} {short(event.container_id)}{ended}",
                "id": event.container_id,
            },
        )
    return 0
