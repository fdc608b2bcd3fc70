"""Usage of a cgroup at one moment, typed; times in nanoseconds, memory in bytes.

What the numbers mean is what the kubelet's summary and the CRI stats mean by them: the working set is usage less
the inactive file cache, which the kernel can drop at once.

Stats is what every client asks for every few seconds, for every container: only what the interface's statistics show,
so that a node with many pods reads few files. Counters is the rest, for the metrics.
Tuples are made in half the time of frozen dataclasses, and a node with many pods makes thousands.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class PressureLine(NamedTuple):
    """Shares of time in which tasks stalled, in percent over 10, 60 and 300 s, and the total in microseconds."""

    avg10: float
    avg60: float
    avg300: float
    total: int


class Pressure(NamedTuple):
    """Pressure stall information (Documentation/accounting/psi.rst); `full` counts when all tasks stalled."""

    some: PressureLine
    full: PressureLine


class CpuStats(NamedTuple):
    """CPU time since the cgroup was made."""

    usage_ns: int
    pressure: Pressure | None = None


class MemoryStats(NamedTuple):
    """Memory charged to the cgroup; a limit of None is no limit, swap is None without swap accounting."""

    usage: int
    working_set: int
    rss: int
    anon: int
    file: int
    mapped: int
    page_faults: int
    major_page_faults: int
    limit: int | None = None
    swap: int | None = None
    swap_limit: int | None = None
    pressure: Pressure | None = None


class Stats(NamedTuple):
    """What this host can tell; a part whose controller is missing is None. `io` is the pressure, not the transfers."""

    timestamp_ns: int
    cpu: CpuStats | None
    memory: MemoryStats | None
    io: Pressure | None


class PidsStats(NamedTuple):
    """Tasks (threads count) and how many there may be."""

    current: int
    limit: int | None = None


class CpuCounters(NamedTuple):
    """CPU time by mode, and how often the quota held the cgroup up."""

    user_ns: int
    system_ns: int
    periods: int = 0
    throttled_periods: int = 0
    throttled_ns: int = 0


class MemoryCounters(NamedTuple):
    """The highest usage, the kernel's part of it, and how often the limit was hit."""

    peak: int = 0
    kernel: int = 0
    failures: int = 0


class DeviceIo(NamedTuple):
    """Bytes and operations on one block device."""

    major: int
    minor: int
    read_bytes: int = 0
    write_bytes: int = 0
    read_ops: int = 0
    write_ops: int = 0


class Counters(NamedTuple):
    """What Stats leaves out; None or empty where the controller is missing. Huge pages by size: (usage, highest)."""

    cpu: CpuCounters | None
    memory: MemoryCounters | None
    io: tuple[DeviceIo, ...]
    huge_pages: Mapping[str, tuple[int, int]]
