"""nodectl pull, with a progress bar.

The CRI tells nothing of a pull before its end. crid says in its verbose Status how many bytes of which pull have come;
beside another runtime there is only a clock that runs, which claims no more than it knows.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import TransferSpeedColumn as SpeedColumn

from cri.client import CriError
from cri.proto import api_pb2 as api
from nodeagent.ctl import amounts
from nodeagent.ctl.complaint import USAGE, Complaint
from nodeagent.ctl.session import CALL_SECONDS, Session

EVERY = 0.2
TIMEOUT = 3600.0


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("image", metavar="IMAGE", help="such as docker.io/library/busybox:1.37")
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress, the id alone")
    parser.add_argument("--user", default="", metavar="NAME", help="for the registry; the password comes from stdin")


async def run(session: Session, given: argparse.Namespace) -> int:
    request = api.PullImageRequest(image=api.ImageSpec(image=given.image))
    if given.user:
        request.auth.username, request.auth.password = given.user, _password()
    started = time.monotonic()
    pull = asyncio.ensure_future(session.cri.PullImage(request, timeout=TIMEOUT))
    if not (given.quiet or session.output.format == "json" or not sys.stderr.isatty()):
        await _watch(session, given.image, pull)
    answer = await pull
    image = (await session.cri.ImageStatus(image=api.ImageSpec(image=answer.image_ref), timeout=CALL_SECONDS)).image
    seconds = time.monotonic() - started
    document = {"image": given.image, "id": answer.image_ref, "size": image.size, "seconds": round(seconds, 3)}
    if session.output.format == "json":
        session.output.json(document)
    elif given.quiet:
        session.output.line(answer.image_ref)
    else:
        session.output.line(f"{given.image}: {answer.image_ref}, {amounts.size(image.size)} in {seconds:.1f} s")
    return 0


def _password() -> str:
    """A terminal is asked without echo; a pipe gives its first line."""
    if sys.stdin.isatty():
        import getpass

        return getpass.getpass("Password: ")
    password = sys.stdin.readline(4096).rstrip("\n")
    if not password:
        raise Complaint("--user: no password on stdin", USAGE)
    return password


async def _watch(session: Session, name: str, pull: asyncio.Future[Any]) -> None:
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), SpeedColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task: TaskID = progress.add_task(name, total=None)
        while not pull.done():
            told = await progress_of(session, name)
            if told is not None:
                progress.update(task, completed=told[0], total=told[1] or None)
            await asyncio.wait([pull], timeout=EVERY)


async def progress_of(session: Session, name: str) -> tuple[int, int] | None:
    """Bytes done and in all; None when this runtime does not say."""
    try:
        pulls = json.loads((await session.cri.Status(verbose=True, timeout=CALL_SECONDS)).info.get("pulls", "{}"))
    except (CriError, ValueError):
        # A bar that stands still is no reason to end a pull that goes on.
        return None
    mine = pulls.get(name)
    return (int(mine["done"]), int(mine["total"])) if mine else None
