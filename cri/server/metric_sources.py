"""What the metrics need beyond a cgroup's statistics: counters of the memory and hugetlb controllers, open files.

Everything here is a read of small files that may vanish at any moment; what is gone or was never there counts as 0,
since a metric has no way to say "unknown" and a missing one makes clients drop the whole series.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from runtime.linux.cgroups import Cgroup, MissingController
from runtime.linux.files import read_limited

FILE_LIMIT = 1 << 16
MAX_PROCESSES = 512
"""Processes of one container whose open files are counted; beyond, the count is a lower bound."""


@dataclass(frozen=True, slots=True)
class MemoryCounters:
    """Bytes, and how often the limit was hit."""

    peak: int = 0
    failures: int = 0
    kernel: int = 0
    mapped: int = 0


@dataclass(frozen=True, slots=True)
class OpenFiles:
    """Of all processes together; `soft_limit` is that of the first one, -1 for none."""

    processes: int = 0
    descriptors: int = 0
    sockets: int = 0
    soft_limit: int = 0


def memory_counters(cgroup: Cgroup) -> MemoryCounters:
    directory = _directory(cgroup, "memory")
    stat = _pairs(f"{directory}/memory.stat")
    if cgroup.layout.version("memory") == 2:
        events = _pairs(f"{directory}/memory.events")
        return MemoryCounters(
            _number(f"{directory}/memory.peak"), events.get("max", 0), stat.get("kernel", 0), stat.get("file_mapped", 0)
        )
    return MemoryCounters(
        _number(f"{directory}/memory.max_usage_in_bytes"),
        _number(f"{directory}/memory.failcnt"),
        _number(f"{directory}/memory.kmem.usage_in_bytes"),
        stat.get("total_mapped_file", 0),
    )


def huge_pages(cgroup: Cgroup) -> dict[str, tuple[int, int]]:
    """(usage, highest usage) in bytes by page size; v2 keeps no highest one, so there it is the usage."""
    directory = _directory(cgroup, "hugetlb")
    found = {}
    for size in page_sizes():
        usage = _number(f"{directory}/hugetlb.{size}.usage_in_bytes") or _number(f"{directory}/hugetlb.{size}.current")
        found[size] = usage, max(usage, _number(f"{directory}/hugetlb.{size}.max_usage_in_bytes"))
    return found


def page_sizes() -> list[str]:
    """The huge page sizes of this kernel as cgroup files spell them: 2MB, 1GB."""
    try:
        names = os.listdir("/sys/kernel/mm/hugepages")
    except FileNotFoundError:
        return []
    return [_size(int(name.removeprefix("hugepages-").removesuffix("kB"))) for name in sorted(names)]


def _size(kib: int) -> str:
    return f"{kib >> 20}GB" if kib >= 1 << 20 else f"{kib >> 10}MB" if kib >= 1 << 10 else f"{kib}KB"


def open_files(pids: list[int]) -> OpenFiles:
    """Counted through /proc; `pids` in the host's numbers, the container's first process first."""
    descriptors = sockets = 0
    for pid in pids[:MAX_PROCESSES]:
        directory = f"/proc/{pid}/fd"
        try:
            names = os.listdir(directory)
        except OSError:  # it has exited
            continue
        descriptors += len(names)
        sockets += sum(_is_socket(f"{directory}/{name}") for name in names)
    return OpenFiles(len(pids), descriptors, sockets, _open_files_limit(pids[0]) if pids else 0)


def _is_socket(link: str) -> bool:
    try:
        return os.readlink(link).startswith("socket:")
    except OSError:  # closed meanwhile
        return False


def _open_files_limit(pid: int) -> int:
    for line in _text(f"/proc/{pid}/limits").splitlines():
        if line.startswith("Max open files"):
            soft = line.split()[3]
            return -1 if soft == "unlimited" else int(soft)
    return 0


def _directory(cgroup: Cgroup, controller: str) -> str:
    try:
        return cgroup.directory(controller)
    except MissingController:
        return "/nonexistent"


def _text(path: str) -> str:
    try:
        return read_limited(path, FILE_LIMIT).decode("ascii", "replace")
    except OSError:
        return ""


def _number(path: str) -> int:
    text = _text(path).strip()
    return int(text) if text.isdecimal() else 0


def _pairs(path: str) -> Mapping[str, int]:
    """`key value` lines."""
    words = (line.split() for line in _text(path).splitlines())
    return {pair[0]: int(pair[1]) for pair in words if len(pair) == 2 and pair[1].isdecimal()}
