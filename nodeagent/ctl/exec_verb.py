"""nodectl exec: through the runtime's streaming URL, so stdin, terminals and output without end work.

Its exit status is the command's own, as with ssh(1): 255 when there was no session.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import sys
import termios
import tty
from collections.abc import AsyncIterator, Iterator

from cri.client import CriClient, CriError
from cri.proto import api_pb2
from cri.streaming_client import StreamFailed, exec_session
from nodeagent.ctl.connect import QUICK, connect, connect_async
from nodeagent.ctl.find import complete_pods, find_container
from nodeagent.ctl.main import Fault

NO_SESSION = 255


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "nodectl exec [-i] [-t] [-c CONTAINER] POD [--] COMMAND [ARGUMENT ...]"
    parser.add_argument("-i", "--stdin", action="store_true", help="pass stdin on")
    parser.add_argument("-t", "--tty", action="store_true", help="give it a terminal")
    parser.add_argument("-c", "--container", default="", help="which of the pod's containers")
    pod = parser.add_argument("pod", help="name, namespace/name, or a container's id")
    pod.completer = complete_pods  # type: ignore[attr-defined]
    parser.add_argument("command", nargs=argparse.REMAINDER, help="what to run")


def run(given: argparse.Namespace) -> int:
    command = given.command[1:] if given.command[:1] == ["--"] else given.command
    if not command:
        raise Fault("nothing to run; say: nodectl exec POD -- COMMAND")
    if given.tty and not (given.stdin and os.isatty(0)):
        raise Fault("-t needs a terminal and -i; without one, leave -t away")
    with connect(given) as cri:
        container = find_container(cri, given.pod, given.container, running=True)
    request = api_pb2.ExecRequest(
        container_id=container.id, cmd=command, tty=given.tty, stdin=given.stdin, stdout=True, stderr=not given.tty
    )
    try:
        with _raw_terminal() if given.tty else contextlib.nullcontext():
            return asyncio.run(_session(given, request))
    except (StreamFailed, ConnectionError) as error:
        print(f"nodectl: exec in {given.pod}: {error}", file=sys.stderr)
        return NO_SESSION


async def _session(given: argparse.Namespace, request: api_pb2.ExecRequest) -> int:
    async with connect_async(given) as cri:
        url = await _url(cri, request)
        sizes = _terminal_sizes() if given.tty else None
        return await exec_session(url, stdin=0 if given.stdin else None, stdout=1, stderr=2, sizes=sizes)


async def _url(cri: CriClient, request: api_pb2.ExecRequest) -> str:
    try:
        answer = await cri.Exec(request, timeout=QUICK)
    except CriError as error:
        raise StreamFailed(error.details or error.code) from error
    return str(answer.url)


@contextlib.contextmanager
def _raw_terminal() -> Iterator[None]:
    """Every key goes to the command; the terminal is put right again, also when the session fails."""
    before = termios.tcgetattr(0)
    tty.setraw(0)
    try:
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)


async def _terminal_sizes() -> AsyncIterator[tuple[int, int]]:
    """(rows, columns) now, and whenever the window changes."""
    changed = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGWINCH, changed.set)
    while True:
        size = os.get_terminal_size(0)
        yield size.lines, size.columns
        await changed.wait()
        changed.clear()
