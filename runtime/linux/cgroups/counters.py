"""Reads the counters that the metrics show beyond a cgroup's usage: modes, throttling, peaks, transfers, huge pages."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping

from runtime.linux.cgroups import stats_v1, stats_v2
from runtime.linux.cgroups.cgroup import Cgroup
from runtime.linux.cgroups.stats import Counters, CpuCounters, DeviceIo, MemoryCounters


def read_counters(cgroup: Cgroup) -> Counters:
    """The counters now, from some 10 files; raises FileNotFoundError (or OSError with ENODEV) without the cgroup."""
    return Counters(_cpu(cgroup), _memory(cgroup), _io(cgroup), _huge_pages(cgroup))


def _cpu(cgroup: Cgroup) -> CpuCounters | None:
    if cgroup.layout.version("cpuacct") == 1:
        cpu = cgroup.directory("cpu") if cgroup.layout.version("cpu") == 1 else ""
        return stats_v1.cpu_counters(cgroup.directory("cpuacct"), cpu)
    return stats_v2.cpu_counters(cgroup.v2) if cgroup.v2 else None


def _memory(cgroup: Cgroup) -> MemoryCounters | None:
    match cgroup.layout.version("memory"):
        case 1:
            return stats_v1.memory_counters(cgroup.directory("memory"))
        case 2:
            return stats_v2.memory_counters(cgroup.v2)
    return None


def _io(cgroup: Cgroup) -> tuple[DeviceIo, ...]:
    if cgroup.layout.version("blkio") == 1:
        return stats_v1.io(cgroup.directory("blkio"))
    return stats_v2.io(cgroup.v2) if cgroup.layout.version("io") == 2 else ()


def _huge_pages(cgroup: Cgroup) -> Mapping[str, tuple[int, int]]:
    """Zero for every size that this kernel has where nothing accounts them."""
    match cgroup.layout.version("hugetlb"):
        case 1:
            return stats_v1.huge_pages(cgroup.directory("hugetlb"), page_sizes())
        case 2:
            return stats_v2.huge_pages(cgroup.v2, page_sizes())
    return dict.fromkeys(page_sizes(), (0, 0))


@functools.cache
def page_sizes() -> tuple[str, ...]:
    """The huge page sizes of this kernel as cgroup files spell them: 2MB, 1GB. Fixed when it booted."""
    try:
        names = os.listdir("/sys/kernel/mm/hugepages")
    except FileNotFoundError:
        return ()
    return tuple(_size(int(name.removeprefix("hugepages-").removesuffix("kB"))) for name in sorted(names))


def _size(kib: int) -> str:
    return f"{kib >> 20}GB" if kib >= 1 << 20 else f"{kib >> 10}MB" if kib >= 1 << 10 else f"{kib}KB"
