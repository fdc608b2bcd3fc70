"""How a child puts itself into its v1 cgroups between clone3 and execve, in microseconds.

`0` written to a `tasks` file moves the calling thread and nothing else, so the kernel need not keep the whole machine
from forking meanwhile (kernel/cgroup/cgroup.c, cgroup_procs_write_start). A pid written to `cgroup.procs` takes
cgroup_threadgroup_rwsem for writing, and with it, unless someone has just done so, an RCU grace period: 5 ms.
"""

from __future__ import annotations

import os
from collections.abc import Iterable


class Join:
    """Opened `tasks` files; made by the parent, used by its children, closed by whoever has them."""

    __slots__ = ("_descriptors",)

    def __init__(self, directories: Iterable[str]) -> None:
        """Open the file of every directory; raises OSError, with none left open."""
        self._descriptors: list[int] = []
        try:
            for directory in directories:
                self._descriptors.append(os.open(f"{directory}/tasks", os.O_WRONLY | os.O_CLOEXEC))
        except BaseException:
            self.close()
            raise

    def enter(self) -> None:
        """In the child, while it has one thread: move it in."""
        for fd in self._descriptors:
            os.write(fd, b"0")

    def close(self) -> None:
        """Close the files."""
        while self._descriptors:
            os.close(self._descriptors.pop())
