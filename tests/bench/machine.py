"""What the kernel says about the whole machine and about a runtime's processes.

A runtime is a tree of which the bench knows two ends: the daemon behind the socket, and the containers' own processes,
which carry a marker of this run in their command line. Everything between and beside (zygotes, shims, monitors, pause
processes) is the runtime's; the containers' own processes are not.
"""

from __future__ import annotations

import os
import resource
import socket
import struct
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")
_PROC = Path("/proc")


def unified_hierarchy() -> Path | None:
    """Where cgroup v2 is mounted, on v2 hosts and on hybrid ones."""
    for line in (_PROC / "self" / "mountinfo").read_text().splitlines():
        mount, _, kind = line.partition(" - ")
        if kind.startswith("cgroup2 "):
            return Path(mount.split()[4])
    return None


def cgroup_cpu_seconds(cgroup: Path) -> float:
    """CPU seconds of all that runs or ever ran in a v2 cgroup and below; 0 for one that is not there."""
    try:
        fields = (cgroup / "cpu.stat").read_text().split()
    except FileNotFoundError:
        return 0.0
    return int(fields[fields.index("usage_usec") + 1]) / 1e6


def daemon_pid(path: str) -> int:
    """The process that listens on the unix socket. Raises OSError."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", credentials)[0])


def busy_seconds() -> float:
    """CPU seconds that all processors have worked since boot, less those of this process; also the kernel's own."""
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(
        int, (_PROC / "stat").read_text().splitlines()[0].split()[1:9]
    )
    own = resource.getrusage(resource.RUSAGE_SELF)
    return (user + nice + system + irq + softirq + steal) / _TICK - own.ru_utime - own.ru_stime


def background_load(seconds: float = 1.0) -> float:
    """CPU seconds per second that the machine spends while nothing is asked of the runtimes."""
    before, started = busy_seconds(), time.monotonic()
    time.sleep(seconds)
    return (busy_seconds() - before) / (time.monotonic() - started)


def cpu_seconds(pids: Iterable[int]) -> float:
    """CPU seconds that these processes have used so far, by the scheduler's own account of each thread."""
    total = 0
    for pid in pids:
        for schedstat in (_PROC / str(pid) / "task").glob("*/schedstat"):
            try:
                total += int(schedstat.read_text().split()[0])
            except OSError:  # it has ended
                continue
    return total / 1e9


def proportional_set_size(pids: Iterable[int]) -> int:
    """Bytes of memory, shared pages divided among those who share them (PSS of smaps_rollup)."""
    total = 0
    for pid in pids:
        try:
            text = (_PROC / str(pid) / "smaps_rollup").read_text()
        except OSError:  # it has ended
            continue
        total += sum(int(line.split()[1]) << 10 for line in text.splitlines() if line.startswith("Pss:"))
    return total


def runtime_processes(daemon: int, marker: str) -> set[int]:
    """The daemon, its descendants, and the ancestors of marked processes with their descendants; no marked ones."""
    parents = dict(_parents())
    marked = {pid for pid in parents if marker in _command(pid)}
    limits = {1, *_ancestors(os.getpid(), parents, set())}
    roots = {daemon}
    for pid in marked:
        roots.update(_ancestors(parents[pid], parents, limits | {daemon}))
    children: dict[int, list[int]] = {}
    for pid, parent in parents.items():
        children.setdefault(parent, []).append(pid)
    found: set[int] = set()
    waiting = list(roots & set(parents))
    while waiting:
        pid = waiting.pop()
        if pid not in found and pid not in marked:
            found.add(pid)
            waiting += children.get(pid, [])
    return found


def _ancestors(pid: int, parents: dict[int, int], limits: set[int]) -> Iterator[int]:
    """The process itself and those above it, up to a limit or the top."""
    while pid in parents and pid not in limits:
        yield pid
        pid = parents[pid]


def _parents() -> Iterator[tuple[int, int]]:
    for entry in _PROC.iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
            except OSError:  # it has ended
                continue
            yield int(entry.name), int(stat.rpartition(")")[2].split()[1])


def _command(pid: int) -> str:
    try:
        return (_PROC / str(pid) / "cmdline").read_bytes().decode("utf-8", "replace")
    except OSError:  # it has ended
        return ""
