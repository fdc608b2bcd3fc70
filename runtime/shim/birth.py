"""A child between clone3 and execve, seen from the shim: what it says (`runtime.status`), its deadline, its end.

The shim does not wait for it: a child that hangs in the kernel (a dead NFS server behind a volume) holds up nobody.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Callable
from typing import Final, NoReturn

from runtime.arrival import arrived_child
from runtime.errors import ContainerError, to_doc
from runtime.linux.channel import Channel
from runtime.linux.fds import Fd
from runtime.linux.syscalls import clone3
from runtime.shim.loop import Loop
from runtime.status import ARRIVED, EXECUTING, FAILED, GO, TERMINAL, Status

DEADLINE_SECONDS: Final = 60.0
EXIT_CODE: Final = 127

#: (error, terminal): the error as JSON, b"" when the program was executed; the terminal's master, if it has one.
Finished = Callable[[bytes, Fd | None], None]


class Birth:
    """One child. `finished` is called exactly once, from the loop or from settle()."""

    __slots__ = (
        "_arrived", "_executing", "_finished", "_loop", "_master", "_status", "_timer", "_what", "pid", "pidfd",
    )  # fmt: skip

    def __init__(self, loop: Loop, what: str, finished: Finished, arrived: Callable[[int], None] | None = None) -> None:
        """`what` names the child in errors. `arrived` is called once `pid` is a successor, with the child's own pid."""
        self._loop = loop
        self._arrived = arrived
        self._what = what
        self._finished = finished
        self._executing = False
        self._master: Fd | None = None
        self.pid = 0

    def begin(
        self,
        body: Callable[[Status], None],
        flags: int,
        cgroup: int,
        clone: Callable[..., tuple[int, int]] | None = None,
    ) -> None:
        """`clone` (None: clone3) with CLONE_NEW* `flags` into the cgroup behind the fd; `body` runs in the child.

        Raises OSError.
        """
        ours, theirs = Channel.pair()
        try:
            pid, pidfd = (clone or clone3)(flags, cgroup=cgroup)
            if not pid:
                run_child(body, Status(theirs))
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        self.watch(ours, pid, pidfd)

    def watch(self, ours: Channel, pid: int, pidfd: int) -> None:
        """Listen to a child that exists; the channel and the pidfd are owned from now on."""
        self.pid, self.pidfd = pid, Fd(pidfd)
        self._status = ours
        ours.setblocking(False)
        self._loop.watch(ours.fileno(), self._readable)
        self._timer = self._loop.call_later(DEADLINE_SECONDS, self._too_late)

    def _readable(self) -> None:
        try:
            while (received := self._status.recv_payload()) is not None:
                said, fds = received
                if fds and not self._take(said, Fd(fds[0])):
                    return None
                if said[:1] == FAILED:
                    return self._finish(said[1:])
                self._executing = self._executing or said == EXECUTING
        except BlockingIOError:
            return None
        except OSError:  # ECONNRESET: it has ended with a word of ours unread
            pass
        return self._end_of_file()

    def _take(self, said: bytes, fd: Fd) -> bool:
        """An fd that came with a word: a terminal or a successor, each of them once. False when that was the end."""
        if said == TERMINAL and self._master is None:
            self._master = fd
        elif said == ARRIVED and self._arrived is not None:
            return self._follow(fd)
        else:
            fd.close()
        return True

    def _follow(self, pidfd: Fd) -> bool:
        try:
            pid = arrived_child(pidfd.fileno())
        except (ContainerError, OSError) as error:
            pidfd.close()
            self._fail(f"{self._what}: {error}")
            return False
        arrived, self._arrived = self._arrived, None
        former, self.pid = self.pid, pid
        self.pidfd.close()
        self.pidfd = pidfd
        assert arrived is not None
        arrived(former)
        with contextlib.suppress(OSError):  # EPIPE: it has ended, which is told by the end of file
            for _ in range(2):
                self._status.send_payload(GO)
        return True

    def _end_of_file(self) -> None:
        if self._executing:
            return self._finish(b"")
        why = "its memory limit may be too low for the start, or somebody killed it"
        self._fail(f"{self._what} was killed before its program was executed: {why}")

    def settle(self) -> None:
        """The child is dead: whatever it had to say has been said."""
        if self._status.fileno() >= 0:
            self._readable()
        if self._status.fileno() >= 0:  # the channel is never passed on, but who knows
            self._end_of_file()

    def _too_late(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd.fileno(), signal.SIGKILL)
        self._fail(f"{self._what} was not ready after {DEADLINE_SECONDS:g} s: a mount may hang")

    def _fail(self, why: str) -> None:
        self._finish(json.dumps(to_doc(ContainerError(why))).encode())

    def _finish(self, error: bytes) -> None:
        self._loop.unwatch(self._status.fileno())
        self._status.close()
        self._timer.cancel()
        master, self._master = self._master, None
        if error and master is not None:
            master.close()
            master = None
        self._finished(error, master)


def run_child(body: Callable[[Status], None], status: Status) -> NoReturn:
    """Run `body`, which ends in execve, in a process that was just cloned; report its failure and exit."""
    try:
        body(status)
    except BaseException as error:  # noqa: BLE001 - this process is a copy of the shim and must not return into it
        with contextlib.suppress(OSError):
            status.failed(error)
    finally:
        os._exit(EXIT_CODE)


def exit_code(status: int) -> int:
    """A wait status (wait(2)) in the shell's terms: 128 + signal when a signal ended it."""
    return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
