"""Starts a program inside a cgroup the way the shim does: opened `tasks` files, clone3 into the v2 cgroup, execve."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable

from runtime.linux import syscalls
from runtime.linux.cgroups import Cgroup

DEADLINE = 60.0


class Inside:
    """A child inside a cgroup; its stdout is kept in a pipe."""

    def __init__(self, cgroup: Cgroup, argv: list[str]) -> None:
        join, target = cgroup.prepare_join(), cgroup.clone_fd()
        self.stdout, write_end = os.pipe()
        self.pid, self.pidfd = syscalls.clone3(0, cgroup=target)
        if not self.pid:
            _become(join.enter, write_end, argv)
        os.close(write_end)
        os.close(target)
        join.close()

    def finish(self) -> tuple[int, str]:
        """(exit status, negative for a signal; what it printed); kills it after a minute."""
        chunks = []
        os.set_blocking(self.stdout, False)
        deadline = time.monotonic() + DEADLINE
        status: int | None = None
        while status is None:
            if time.monotonic() > deadline:
                signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
            time.sleep(0.005)
            chunks.append(self._drain())
            done, raw = os.waitpid(self.pid, os.WNOHANG)
            status = os.waitstatus_to_exitcode(raw) if done else None
        chunks.append(self._drain())
        os.close(self.stdout)
        os.close(self.pidfd)
        return status, b"".join(chunks).decode()

    def _drain(self) -> bytes:
        try:
            return os.read(self.stdout, 1 << 16)
        except BlockingIOError:
            return b""


def _become(enter: Callable[[], None], stdout: int, argv: list[str]) -> None:
    try:
        enter()
        os.dup2(stdout, 1)
        os.execvp(argv[0], argv)
    finally:
        os._exit(127)


def python(code: str) -> list[str]:
    """argv for a Python program without site packages: it starts in milliseconds and needs little memory."""
    return [sys.executable, "-I", "-S", "-c", code]
