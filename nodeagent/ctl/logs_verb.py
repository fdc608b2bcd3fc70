"""nodectl logs: the files that the runtime writes, read where they lie: the rotated ones, the newest, what comes."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

from cri.client import CriError
from cri.proto import api_pb2 as api
from nodeagent.ctl.amounts import moment_before, nanoseconds
from nodeagent.ctl.complaint import USAGE, Complaint
from nodeagent.ctl.completers import completed, containers, pods
from nodeagent.ctl.session import CALL_SECONDS, Session
from nodeagent.ctl.targets import find_container
from nodeagent.ctl.world import look
from nodeagent.logs.follow import follow
from nodeagent.logs.lines import Line
from nodeagent.logs.opening import open_log
from nodeagent.logs.past import read_log


def arguments(parser: argparse.ArgumentParser) -> None:
    completed(parser.add_argument("target", metavar="POD|CONTAINER", help="name, namespace/name or id"), pods)
    completed(parser.add_argument("-c", "--container", default="", help="which of the pod's containers"), containers)
    parser.add_argument("-f", "--follow", action="store_true", help="go on until the container has ended")
    parser.add_argument("-p", "--previous", action="store_true", help="of the attempt before")
    parser.add_argument("--tail", type=int, metavar="N", help="only the last N lines (all: -1)")
    parser.add_argument("--since", default="", metavar="WHEN", help="only from then on: 90s, 1h30m, or a time")
    parser.add_argument("-t", "--timestamps", action="store_true", help="each line with its time")


async def run(session: Session, given: argparse.Namespace) -> int:
    try:
        since = moment_before(given.since, time.time_ns()) if given.since else 0
    except ValueError as error:
        raise Complaint(f"--since: {error}", USAGE) from None
    container, remark = find_container(await look(session), given.target, given.container, previous=given.previous)
    if remark:
        session.note(remark)
    status = (await session.cri.ContainerStatus(container_id=container.id, timeout=CALL_SECONDS)).status
    if not status.log_path:
        raise Complaint(f"container {container.metadata.name} has no log: it was made without a log path")
    show = printer(given.timestamps, since)
    try:
        await _read(session, given, container, Path(status.log_path), since, show)
    except FileNotFoundError:
        raise Complaint(f"the log {status.log_path} is not there (any more)") from None
    return 0


async def _read(
    session: Session,
    given: argparse.Namespace,
    container: api.Container,
    path: Path,
    since: int,
    show: Callable[[Line], None],
) -> None:
    out = sys.stdout.buffer
    tail = None if given.tail is None or given.tail < 0 else given.tail
    if given.follow:
        async for line in follow(path, lambda: _runs(session, container.id), session.note, tail, since):
            show(line)
            out.flush()
        return
    with open_log(path) as newest:
        for line in read_log(path, newest, session.note, tail, since):
            show(line)
    out.flush()


async def _runs(session: Session, id: str) -> bool:
    """Whether more is to come. A runtime that is away for a moment has not ended its containers."""
    try:
        found = (await session.cri.ListContainers(filter=api.ContainerFilter(id=id), timeout=CALL_SECONDS)).containers
    except CriError as error:
        if error.code == "UNAVAILABLE":
            return True
        raise
    return any(each.state in (api.CONTAINER_RUNNING, api.CONTAINER_CREATED) for each in found)


def printer(timestamps: bool, since: int) -> Callable[[Line], None]:
    """Write both streams to stdout, as kubectl does; the parts of a long line get one time."""
    out = sys.stdout.buffer
    open_streams: set[bytes] = set()

    def show(line: Line) -> None:
        if since and nanoseconds(line.time.decode("ascii", "replace")) < since:
            return
        if timestamps and line.stream not in open_streams:
            out.write(line.time + b" ")
        if line.content.endswith(b"\n"):
            open_streams.discard(line.stream)
        else:
            open_streams.add(line.stream)
        out.write(line.content)

    return show
