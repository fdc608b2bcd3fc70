"""nodectl logs: reads the files that the runtime writes (the CRI leaves logs to whoever runs on the node)."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Callable
from pathlib import Path

from cri.client import CriClientSync
from cri.proto import api_pb2
from nodeagent.ctl.connect import QUICK, connect
from nodeagent.ctl.find import complete_pods, containers, find_container
from nodeagent.ctl.main import Fault
from nodeagent.ctl.output import parse_time
from nodeagent.logs.lines import Line
from nodeagent.logs.reader import follow, read_lines, seek_to_tail


def arguments(parser: argparse.ArgumentParser) -> None:
    pod = parser.add_argument("pod", help="name, namespace/name, or a container's id")
    pod.completer = complete_pods  # type: ignore[attr-defined]
    parser.add_argument("-c", "--container", default="", help="which of the pod's containers")
    parser.add_argument("-f", "--follow", action="store_true", help="go on until the container ends")
    parser.add_argument("-p", "--previous", action="store_true", help="of the container before the last restart")
    parser.add_argument("--tail", type=int, help="only the last lines", metavar="LINES")
    parser.add_argument("--since-time", default="", metavar="TIME", help="only from then on (2026-01-31T12:00:00Z)")
    parser.add_argument("-t", "--timestamps", action="store_true", help="each line with its time")


def run(given: argparse.Namespace) -> int:
    since = _since(given.since_time)
    with connect(given) as cri:
        container = find_container(cri, given.pod, given.container)
        if given.previous:
            container = _previous(cri, container, given.pod)
        status = cri.ContainerStatus(container_id=container.id, timeout=QUICK).status
        if not status.log_path:
            raise Fault(f"container {container.metadata.name} of {given.pod} was made without a log file")
        show = _printer(given.timestamps, since)
        try:
            if given.follow:
                asyncio.run(_follow(Path(status.log_path), lambda: _runs(cri, container.id), given.tail, show))
            else:
                _read(Path(status.log_path), given.tail, show)
        except FileNotFoundError:
            raise Fault(f"the log {status.log_path} is not there (any more)") from None
    return 0


def _since(text: str) -> int:
    try:
        return parse_time(text)
    except ValueError:
        raise Fault(f"--since-time: {text!r} is no time such as 2026-01-31T12:00:00Z") from None


def _previous(cri: CriClientSync, container: api_pb2.Container, pod: str) -> api_pb2.Container:
    """The newest dead one; in a crash loop that is the last one too."""
    same = [
        each
        for each in containers(cri)
        if each.pod_sandbox_id == container.pod_sandbox_id
        and each.metadata.name == container.metadata.name
        and each.state == api_pb2.CONTAINER_EXITED
    ]
    if not same:
        raise Fault(f"container {container.metadata.name} of {pod} was not restarted yet")
    return same[0]


def _runs(cri: CriClientSync, id: str) -> bool:
    found = cri.ListContainers(filter=api_pb2.ContainerFilter(id=id), timeout=QUICK).containers
    return any(each.state == api_pb2.CONTAINER_RUNNING for each in found)


def _read(path: Path, tail: int | None, show: Callable[[Line], None]) -> None:
    with path.open("rb") as file:
        if tail is not None:
            seek_to_tail(file, max(tail, 0))
        for line in read_lines(file):
            show(line)
    sys.stdout.buffer.flush()


async def _follow(path: Path, running: Callable[[], bool], tail: int | None, show: Callable[[Line], None]) -> None:
    async for line in follow(path, running, tail):
        show(line)
        sys.stdout.buffer.flush()


def _printer(timestamps: bool, since: int) -> Callable[[Line], None]:
    out, err = sys.stdout.buffer, sys.stderr.buffer

    def show(line: Line) -> None:
        if since and parse_time(line.time.decode("ascii", "replace")) < since:
            return
        stream = err if line.stream == b"stderr" else out
        stream.write(line.time + b" " + line.content if timestamps else line.content)

    return show
