"""A child between clone3 and execve: its status channel, its deadline, and how it ends.

    {"terminal": true} + fd     the master of the terminal that it has made
    {"exec": true}              everything is done but execve
    {"error": {...}}            a step failed
    end of file                 after "exec": execve succeeded. Without a word: somebody killed it

The shim does not wait for it: a child that hangs in the kernel (a dead NFS server behind a volume) holds up nobody.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from runtime.errors import ContainerError, from_doc
from runtime.init import run_child
from runtime.linux.channel import Channel
from runtime.linux.fds import Fd
from runtime.linux.syscalls import clone3
from runtime.shim.loop import Loop

DEADLINE_SECONDS: Final = 60.0


@dataclass(slots=True)
class Outcome:
    """What came of it: an error, or a process that has been executed. `master` is the terminal's."""

    error: Exception | None
    master: Fd | None


class Birth:
    """One child. `finished` is called exactly once, from the loop or from settle()."""

    __slots__ = ("_executing", "_finished", "_loop", "_master", "_status", "_timer", "_what", "pid", "pidfd")

    def __init__(self, loop: Loop, what: str, finished: Callable[[Outcome], None]) -> None:
        """`what` names the child in errors."""
        self._loop = loop
        self._what = what
        self._finished = finished
        self._executing = False
        self._master: Fd | None = None
        self.pid = 0

    def begin(self, body: Callable[[Channel], None], flags: int, cgroup: int) -> None:
        """clone3 with CLONE_NEW* `flags` into the cgroup behind the fd; `body` runs in the child. Raises OSError."""
        ours, theirs = Channel.pair()
        try:
            pid, pidfd = clone3(flags, cgroup=cgroup)
            if not pid:
                run_child(body, theirs)
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        self.pid, self.pidfd = pid, Fd(pidfd)
        self._status = ours
        ours.setblocking(False)
        self._loop.watch(ours.fileno(), self._readable)
        self._timer = self._loop.call_later(DEADLINE_SECONDS, self._too_late)

    def _readable(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                message = self._status.recv()
                if message is None:
                    return self._end_of_file()
                if "error" in message.doc:
                    return self._finish(from_doc(message.doc["error"]))
                if message.fds:
                    self._master = Fd(message.fds[0])
                self._executing = self._executing or "exec" in message.doc

    def _end_of_file(self) -> None:
        if self._executing:
            return self._finish(None)
        why = "its memory limit may be too low for the start, or somebody killed it"
        self._finish(ContainerError(f"{self._what} was killed before its program was executed: {why}"))

    def settle(self) -> None:
        """The child is dead: whatever it had to say has been said."""
        if self._finished_yet:
            return
        self._readable()
        if not self._finished_yet:  # a grandchild cannot hold the channel: it is close-on-exec and never passed on
            self._end_of_file()

    @property
    def _finished_yet(self) -> bool:
        return self._status.fileno() < 0

    def _too_late(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd.fileno(), signal.SIGKILL)
        self._finish(ContainerError(f"{self._what} was not ready after {DEADLINE_SECONDS:g} s: a mount may hang"))

    def _finish(self, error: Exception | None) -> None:
        self._loop.unwatch(self._status.fileno())
        self._status.close()
        self._timer.cancel()
        master, self._master = self._master, None
        if error is not None and master is not None:
            master.close()
            master = None
        self._finished(Outcome(error, master))


def exit_code(status: int) -> int:
    """A wait status (wait(2)) in the shell's terms: 128 + signal when a signal ended it."""
    return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
