"""What runs in a pod, as crid holds it: a container that was started, an attachment to one, execs."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from runtime.calls import Calls
from runtime.errors import ContainerError, ShimLost
from runtime.linux.fds import Fd
from runtime.streams import set_size

CALL_SECONDS = 10.0
START_SECONDS = 120.0  # a slow disk below the layers; the shim's own deadline is shorter and explains more


@dataclass(frozen=True, slots=True)
class Started:
    """A container that runs: host pid, and when execve was done in ns since the epoch."""

    pid: int
    started_at: int


@dataclass(slots=True)
class Attachment:
    """Fds to a container's streams, the caller's to close. `stdin` and `stderr` may be absent (tty, no stdin)."""

    stdin: int | None
    stdout: int
    stderr: int | None


class Exec:
    """One more process in a container. `master` is the terminal's master fd, the caller's to close, or None."""

    def __init__(self, calls: Calls, id: str, pid: int, master: int | None, exited: asyncio.Future[int]) -> None:
        self.id = id
        self.pid = pid
        self.master = master
        self._calls = calls
        self._exited = exited
        self._terminal = Fd(os.dup(master)) if master is not None else None
        exited.add_done_callback(self._close_terminal)

    def _close_terminal(self, _: asyncio.Future[int]) -> None:
        if self._terminal is not None:
            self._terminal.close()

    async def wait(self) -> int:
        """The exit code (128 + signal when a signal ended it). Raises ShimLost. Cancelling does not kill."""
        return await asyncio.shield(self._exited)

    async def resize(self, rows: int, columns: int) -> None:
        """Set the terminal's size in characters; nothing without one, or when the process has exited."""
        if self._terminal is not None and not self._terminal.closed:
            set_size(self._terminal.fileno(), rows, columns)

    async def kill(self) -> None:
        """SIGKILL the process and everything it has started; no error when they are gone."""
        await self._calls.call("exec_kill", CALL_SECONDS, exec=self.id)


class Execs:
    """The execs of one pod that have not ended, by id; the shim tells how they end."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._endings: dict[str, asyncio.Future[int]] = {}

    async def start(self, request: dict[str, Any], blob: bytes, fds: Sequence[int]) -> Exec:
        """Ask for one; `request["exec"]` is its id. When this raises, it does not run."""
        id, ending = request["exec"], asyncio.get_running_loop().create_future()
        self._endings[id] = ending
        try:
            message = await self._calls.call("exec", START_SECONDS, fds, blob, **request)
        except BaseException:
            self._endings.pop(id, None)
            with contextlib.suppress(ContainerError, OSError):
                if self._calls.open:  # a cancelled or late start must not go on running
                    await asyncio.shield(self._calls.call("exec_kill", CALL_SECONDS, exec=id))
            raise
        return Exec(self._calls, id, message.doc["pid"], message.fds[0] if message.fds else None, ending)

    def exited(self, id: str, exit_code: int) -> None:
        """One has ended; an unknown one is nobody's."""
        ending = self._endings.pop(id, None)
        if ending is not None and not ending.done():
            ending.set_result(exit_code)

    def lose(self, why: str) -> None:
        """The shim is gone, so nobody will ever tell how they end: ShimLost to all who wait."""
        for ending in self._endings.values():
            if not ending.done():
                ending.set_exception(ShimLost(why))
                ending.exception()  # whoever waits still gets it; nobody waiting is no error
        self._endings.clear()
