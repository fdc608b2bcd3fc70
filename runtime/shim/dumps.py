"""A criu that takes checkpoints, as the shim holds it: a child outside of the container's cgroup, with a deadline.

It is never killed for the sake of its caller: in the middle of a dump that would leave the container's processes with
foreign code in them, while a criu that is let alone cures them and goes, whether or not anybody reads its answer.
"""

from __future__ import annotations

import contextlib
import functools
import signal
from collections.abc import Callable

from runtime.criu import run_dump
from runtime.linux.fds import Fd
from runtime.shim.birth import Birth
from runtime.shim.loop import Loop


class Dump:
    """One `criu swrk`."""

    __slots__ = ("_begun", "_birth", "_ended", "_loop", "_pidfd", "pid")

    def __init__(self, loop: Loop, begun: Callable[[Dump, bytes], None], ended: Callable[[], None]) -> None:
        """`begun` is called when it takes requests, or with what kept it from that as JSON; then `ended`."""
        self._loop = loop
        self._begun = begun
        self._ended = ended
        self.pid = 0

    def begin(self, program: str, socket: Fd, seconds: float) -> int:
        """Clone it: its pid. After `seconds` it is killed. Raises OSError."""
        self._birth: Birth | None = Birth(self._loop, "criu", self._born)
        self._birth.begin(functools.partial(run_dump, program, socket.fileno()), 0, -1)
        self.pid, self._pidfd = self._birth.pid, self._birth.pidfd
        self._loop.call_later(seconds, self._too_late)
        return self.pid

    def _born(self, error: bytes, master: Fd | None) -> None:
        self._birth = None
        self._begun(self, error)

    def _too_late(self) -> None:
        if not self._pidfd.closed:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd.fileno(), signal.SIGKILL)

    def reaped(self, wait_status: int) -> None:
        """It has ended."""
        if self._birth is not None:
            self._birth.settle()
        self._pidfd.close()
        self._ended()
