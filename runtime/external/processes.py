"""Processes that an external runtime has made: read from its pid file, checked, and killed with what they started."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Collection, Iterable
from typing import Final

from runtime.linux.cgroups import Cgroup
from runtime.linux.procs import Process

ROUNDS: Final = 20


def read_pid(path: str) -> int:
    """The pid that a runtime has written; raises ValueError when it is none, FileNotFoundError without the file."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        text = os.read(fd, 32).decode("ascii", "replace").strip()
    finally:
        os.close(fd)
    if not text.isdecimal() or int(text) < 2:
        raise ValueError(f"its pid file holds {text!r}")
    return int(text)


def is_ours(pid: int) -> bool:
    """Whether a process is this shim's child: the runtime has ended, so what it has made was given to the subreaper."""
    return parent(pid) == os.getpid()


def parent(pid: int) -> int:
    """The parent of a process, 0 when there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            return int(file.read(1024).rpartition(")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0


def set_oom_score_adj(pid: int, score: int) -> None:
    """Of a child of this shim, which is there until the shim waits for it: the number is nobody else's."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended, and was waited for
        fd = os.open(f"/proc/{pid}/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, b"%d" % score)
        finally:
            os.close(fd)


def kill_family(pid: int, cgroup: Cgroup) -> None:
    """SIGKILL a child of this shim in a container, and all that descend from it.

    An exec of an external runtime has no cgroup of its own. So its descendants are stopped, generation by generation,
    until no new ones appear, and then killed together: none can escape by forking meanwhile. Nobody is signalled by
    number: whoever is root in the container can end them and have their numbers given out again, on the host too.
    """
    family: dict[int, Process] = {}
    fresh = _found([pid], {os.getpid()})
    for _ in range(ROUNDS):
        for member in fresh.values():
            member.signal(signal.SIGSTOP)
        family |= fresh
        fresh = _found(set(cgroup.procs()) - family.keys(), family.keys())
        if not fresh:
            break
    for member in family.values():
        member.signal(signal.SIGKILL)


def _found(pids: Iterable[int], parents: Collection[int]) -> dict[int, Process]:
    """Those of the processes that have one of these parents, asked after it is known which ones they are."""
    found = {}
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            process = Process.of(pid)
            if parent(pid) in parents:
                found[pid] = process
    return found
