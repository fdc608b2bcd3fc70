"""Processes of others: told apart by start time, held as pidfds.

A pid alone is a number that the kernel gives out again, so nothing here keeps or signals a bare one: a Process
is pid + start time (proc(5), /proc/pid/stat field 22), and every signal goes through a pidfd that was opened
first and compared with the start time afterwards.
"""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

STAT_LIMIT = 4096
INFO_LIMIT = 4096
DEAD_STATES = frozenset("ZXx")


@dataclass(frozen=True, slots=True)
class Process:
    """One process for ever: `start_time` is in clock ticks since boot, so pair it with the boot id on disk."""

    pid: int
    start_time: int

    @classmethod
    def of(cls, pid: int) -> Process:
        """The process that has this pid now; raises ProcessLookupError when there is none."""
        return cls(pid, _stat(pid)[1])

    @classmethod
    def current(cls) -> Process:
        """This process."""
        return cls.of(os.getpid())

    def alive(self) -> bool:
        """Whether it still runs; a zombie does not."""
        try:
            state, start_time = _stat(self.pid)
        except ProcessLookupError:
            return False
        return start_time == self.start_time and state not in DEAD_STATES

    def pidfd(self) -> int:
        """A pidfd (close-on-exec; the caller closes it); raises ProcessLookupError when the process is gone."""
        fd = os.pidfd_open(self.pid)
        try:
            # Compared after the open: from here on the fd cannot come to mean another process.
            if _stat(self.pid)[1] != self.start_time:
                raise ProcessLookupError(f"process {self.pid} is another one than at {self.start_time}")
        except BaseException:
            os.close(fd)
            raise
        return fd

    def signal(self, number: int) -> bool:
        """Send a signal; False when the process is gone already."""
        try:
            fd = self.pidfd()
        except ProcessLookupError:
            return False
        try:
            signal.pidfd_send_signal(fd, number)
        except ProcessLookupError:
            return False
        finally:
            os.close(fd)
        return True

    def to_json(self) -> dict[str, int]:
        """The form for state files and ledger details."""
        return {"pid": self.pid, "start_time": self.start_time}

    @classmethod
    def from_json(cls, doc: Mapping[str, Any]) -> Process:
        """The inverse of to_json(); raises KeyError or ValueError for anything else."""
        return cls(int(doc["pid"]), int(doc["start_time"]))


def pid_of(pidfd: int) -> int:
    """The pid behind a pidfd, from its fdinfo (pidfd_open(2)); raises ProcessLookupError when the process is gone.

    The same for one that is in no PID namespace of the caller's.
    """
    fd = os.open(f"/proc/self/fdinfo/{pidfd}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        lines = os.read(fd, INFO_LIMIT).splitlines()
    finally:
        os.close(fd)
    for line in lines:
        name, _, value = line.partition(b":")
        if name == b"Pid" and int(value) > 0:
            return int(value)
    raise ProcessLookupError(errno.ESRCH, f"the process behind pidfd {pidfd} is gone")


def _stat(pid: int) -> tuple[str, int]:
    """State letter and start time; the name in between may hold spaces and brackets, so count from its last `)`."""
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise ProcessLookupError(f"no process {pid}") from None
    try:
        fields = os.read(fd, STAT_LIMIT).rpartition(b")")[2].split()
    finally:
        os.close(fd)
    return fields[0].decode("ascii"), int(fields[19])
