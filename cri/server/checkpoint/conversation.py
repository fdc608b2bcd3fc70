"""CRIU's RPC over the socket of a `criu swrk`: one request, the steps that criu waits at, and its answer.

One message is one packet. criu opens the directories that a request names as fds of the process that made the socket
pair (SO_PEERCRED), which is crid; fds to inherit are its own. Source: https://criu.org/RPC.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TypeAlias

from google.protobuf.message import DecodeError

from cri.proto import criu_pb2 as criu
from cri.server.errors import CriFault, TookTooLong, WrongState
from runtime.linux.fds import Fd
from runtime.linux.files import read_limited

PACKET = 64 * 1024
LOG_LIMIT = 64 << 20
TAIL_LINES = 5
LOG_LEVEL = 4

#: (the step's name, the first process's pid or 0, fds that came with it and are closed afterwards)
OnStep: TypeAlias = Callable[[str, int, list[int]], Awaitable[None]]


def common_options(images: int, work: int, log: str, *, terminal: bool) -> criu.Options:
    """What a dump and a restore are told alike; `images` and `work` are fds, `log` is a name in the latter.

    Pipes, connections and cgroups lead out of the container: they are left to those who made them.
    """
    return criu.Options(
        images_dir_fd=images,
        work_dir_fd=work,
        log_level=LOG_LEVEL,
        log_file=log,
        ext_unix_sk=True,
        tcp_established=True,
        network_lock=criu.SKIP,
        file_locks=True,
        shell_job=terminal,
        ext_sharing=True,
        ext_masters=True,
        manage_cgroups_mode=criu.IGNORE,
    )


class Conversation:
    """crid's end of the socket, and criu's until it is handed over."""

    def __init__(self) -> None:
        self._ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._ours.setblocking(False)

    def close(self) -> None:
        """Hang up; criu notices when it next speaks."""
        self._ours.close()
        self.theirs.close()

    async def ask(self, request: criu.Request, seconds: float, on_step: OnStep | None = None) -> criu.Response:
        """The answer, whatever it says. Raises TookTooLong, WrongState when criu ends without one, and what
        `on_step` raises.
        """
        self.theirs.close()  # so that the end of criu is the end of file
        try:
            async with asyncio.timeout(seconds):
                self._send(request)
                while True:
                    response, fds = await self._receive()
                    if response.type != criu.NOTIFY:
                        return response
                    try:
                        if on_step is not None:
                            await on_step(response.notify.script, response.notify.pid, fds)
                    finally:
                        for fd in fds:
                            os.close(fd)
                    self._send(criu.Request(type=criu.NOTIFY, notify_success=True))
        except TimeoutError as error:
            raise TookTooLong(f"criu was not done within {seconds:g} s") from error

    def _send(self, message: criu.Request) -> None:
        try:
            self._ours.send(message.SerializeToString())
        except OSError as error:
            raise WrongState(f"criu does not take requests: {error.strerror}") from error

    async def _receive(self) -> tuple[criu.Response, list[int]]:
        while True:
            try:
                payload, fds, _, _ = socket.recv_fds(self._ours, PACKET, 4)
            except BlockingIOError:
                await self._readable()
                continue
            except ConnectionError:
                payload, fds = b"", []
            if not payload:
                raise WrongState("criu ended without an answer")
            try:
                return criu.Response.FromString(payload), fds
            except DecodeError as error:
                raise WrongState(f"criu speaks nonsense: {payload[:80]!r}") from error

    async def _readable(self) -> None:
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = loop.create_future()
        loop.add_reader(self._ours, _settle, ready)
        try:
            await ready
        finally:
            loop.remove_reader(self._ours)


def _settle(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


@contextlib.contextmanager
def conversing(log: Path) -> Iterator[Conversation]:
    """A conversation for the block; a CriFault in there is told with the end of criu's `log`."""
    conversation = Conversation()
    try:
        yield conversation
    except CriFault as error:
        if words := _last_words(log):
            error.add_note(f"its log ends: {words}")
        raise
    finally:
        conversation.close()


def refused(response: criu.Response) -> WrongState:
    """The error of an answer that says no."""
    return WrongState(f"criu refused (errno {response.cr_errno}) {response.cr_errmsg}".strip())


def _last_words(log: Path) -> str:
    """What of criu's log explains a failure: its last errors, else its last lines; empty without a log."""
    try:
        lines = read_limited(log, LOG_LIMIT).decode(errors="replace").splitlines()
    except OSError:
        return ""
    errors = [line for line in lines if "Error" in line] or lines
    return " | ".join(line.strip()[:300] for line in errors[-TAIL_LINES:])


def open_directory(path: Path) -> Fd:
    """A directory that a request names, for as long as criu works on it."""
    return Fd(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC))
