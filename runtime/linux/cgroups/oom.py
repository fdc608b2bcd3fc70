"""Out-of-memory kills: counted by the kernel for each cgroup, and announced through an fd that a poll loop can hold.

    v2  memory.events, key oom_kill; a change wakes poll(2) with POLLPRI (cgroup-v2.rst)
    v1  memory.oom_control, key oom_kill; an eventfd registered in cgroup.event_control (cgroup-v1/memory.rst, 10)

The kernel counts the kill before it sends the signal, so whoever reads the count after it has seen the process end
learns the truth without any watch; the watch is for telling at once, and for kills of children of the container.
"""

from __future__ import annotations

import errno
import os
import select
from typing import TYPE_CHECKING

from runtime.linux.cgroups import files

if TYPE_CHECKING:
    from runtime.linux.cgroups.cgroup import Cgroup


def oom_kills(cgroup: Cgroup) -> int:
    """Processes that the OOM killer has taken, on v2 also from cgroups below; 0 without a memory controller."""
    version = cgroup.layout.version("memory")
    if not version:
        return 0
    file = "memory.events" if version == 2 else "memory.oom_control"
    try:
        return files.read_pairs(f"{cgroup.directory('memory')}/{file}").get("oom_kill", 0)
    except FileNotFoundError:
        return 0
    except OSError as error:
        if error.errno == errno.ENODEV:  # removed between open and read
            return 0
        raise


class OomWatch:
    """An fd to poll for `events`; after it fired, acknowledge() and read oom_kills()."""

    __slots__ = ("_version", "events", "fd")

    def __init__(self, cgroup: Cgroup) -> None:
        """Raises MissingController without a memory controller, OSError when the cgroup is not there."""
        directory = cgroup.directory("memory")
        self._version = cgroup.layout.version("memory")
        if self._version == 2:
            self.fd = os.open(f"{directory}/memory.events", os.O_RDONLY | os.O_CLOEXEC)
            self.events = select.POLLPRI
        else:
            self.fd = _event_fd(directory)
            self.events = select.POLLIN
        self.acknowledge()

    def acknowledge(self) -> None:
        """Arm the fd again; the kernel shows the next change only to who has read the last one."""
        try:
            os.pread(self.fd, 4096, 0) if self._version == 2 else os.eventfd_read(self.fd)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.ENODEV:  # the cgroup is gone, and with it everything to tell
                raise

    def close(self) -> None:
        """Close the fd; the kernel drops the registration with it."""
        os.close(self.fd)


def _event_fd(directory: str) -> int:
    event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    try:
        control = os.open(f"{directory}/memory.oom_control", os.O_RDONLY | os.O_CLOEXEC)
        try:
            files.write(f"{directory}/cgroup.event_control", f"{event} {control}")
        finally:
            os.close(control)
    except BaseException:
        os.close(event)
        raise
    return event
