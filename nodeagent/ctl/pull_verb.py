"""nodectl pull, with a progress bar.

The CRI tells nothing of a pull before its end. crid says in its verbose Status how many bytes of which pull have come;
beside another runtime there is only a clock that runs.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from cri.client import CriClientSync, CriError
from cri.proto import api_pb2
from nodeagent.ctl.connect import connect
from nodeagent.ctl.output import emit_json, size

EVERY = 0.2
TIMEOUT = 3600.0


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("image", metavar="IMAGE", help="such as docker.io/library/busybox:1.37")
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress")
    parser.add_argument("--user", default="", metavar="NAME:PASSWORD", help="credentials for the registry")


def run(given: argparse.Namespace) -> int:
    started = time.monotonic()
    with connect(given) as cri, ThreadPoolExecutor(1) as pool:
        pulled = pool.submit(_pull, cri, given)
        if given.quiet or given.output == "json" or not sys.stderr.isatty():
            answer = pulled.result()
        else:
            answer = _watch(cri, given.image, pulled)
        image = cri.ImageStatus(image=api_pb2.ImageSpec(image=answer.image_ref)).image
    seconds = time.monotonic() - started
    if given.output == "json":
        emit_json({"image": given.image, "id": answer.image_ref, "size": image.size, "seconds": round(seconds, 3)})
    else:
        print(f"{given.image}: {answer.image_ref}, {size(image.size)} in {seconds:.1f} s")
    return 0


def _pull(cri: CriClientSync, given: argparse.Namespace) -> api_pb2.PullImageResponse:
    request = api_pb2.PullImageRequest(image=api_pb2.ImageSpec(image=given.image))
    if given.user:
        name, _, password = given.user.partition(":")
        request.auth.username, request.auth.password = name, password
    answer: api_pb2.PullImageResponse = cri.PullImage(request, timeout=TIMEOUT)
    return answer


def _watch(cri: CriClientSync, name: str, pulled: Future[Any]) -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
    from rich.progress import TransferSpeedColumn as Speed

    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), DownloadColumn(), Speed())
    with Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(name, total=None)
        done = threading.Event()
        pulled.add_done_callback(lambda _: done.set())
        while not done.wait(EVERY):
            told = progress_of(cri, name)
            if told is not None:
                progress.update(task, completed=told[0], total=told[1] or None)
    return pulled.result()


def progress_of(cri: CriClientSync, name: str) -> tuple[int, int] | None:
    """Bytes done and in all; None when this runtime does not say."""
    try:
        pulls = json.loads(cri.Status(verbose=True, timeout=2.0).info.get("pulls", "{}"))
    except (CriError, ValueError):
        # A bar that stands still is no reason to end a pull that goes on.
        return None
    mine = pulls.get(name)
    return (int(mine["done"]), int(mine["total"])) if mine else None
