"""Reads a cgroup's usage from wherever this host keeps each part of it, for daemons: no shim imports this."""

from __future__ import annotations

import errno
import time

from runtime.linux.cgroups import files, stats_v1, stats_v2
from runtime.linux.cgroups.cgroup import Cgroup
from runtime.linux.cgroups.stats import CpuStats, MemoryStats, PidsStats, Pressure, PressureLine, Stats


def read_stats(cgroup: Cgroup) -> Stats:
    """The usage now, from 8 or 9 files; raises FileNotFoundError (or OSError with ENODEV) when the cgroup is gone."""
    return Stats(time.time_ns(), _cpu(cgroup), _memory(cgroup), _pressure(cgroup, "io"))


def read_task_count(cgroup: Cgroup) -> int | None:
    """How many tasks there are; None without the controller, FileNotFoundError when the cgroup is gone."""
    if not cgroup.layout.version("pids"):
        return None
    return int(files.read(f"{cgroup.directory('pids')}/pids.current"))


def read_pids(cgroup: Cgroup) -> PidsStats | None:
    """How many tasks there are and may be; else as read_task_count()."""
    current = read_task_count(cgroup)
    if current is None:
        return None
    return PidsStats(current, files.read_limit(f"{cgroup.directory('pids')}/pids.max"))


def _cpu(cgroup: Cgroup) -> CpuStats | None:
    pressure = _pressure(cgroup, "cpu")
    if cgroup.layout.version("cpuacct") == 1:
        return stats_v1.cpu(cgroup.directory("cpuacct"), pressure)
    # cpu.stat counts time on v2 whether or not the controller is enabled.
    return stats_v2.cpu(cgroup.v2, pressure) if cgroup.v2 else None


def _memory(cgroup: Cgroup) -> MemoryStats | None:
    version = cgroup.layout.version("memory")
    if not version:
        return None
    pressure = _pressure(cgroup, "memory")
    if version == 2:
        return stats_v2.memory(cgroup.v2, pressure)
    return stats_v1.memory(cgroup.directory("memory"), pressure)


def _pressure(cgroup: Cgroup, resource: str) -> Pressure | None:
    """PSI comes from v2 on every host that has it, also where the controller itself is on v1."""
    if not cgroup.v2:
        return None
    try:
        words = files.read(f"{cgroup.v2}/{resource}.pressure").replace("=", " ").split()
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:  # psi=0 on the kernel command line
            return None
        raise
    # Before Linux 5.13 cpu.pressure has no `full` line.
    return Pressure(_line(words), _line(words[9:]) if len(words) > 9 else PressureLine(0.0, 0.0, 0.0, 0))


def _line(words: list[str]) -> PressureLine:
    """some avg10 0.00 avg60 0.00 avg300 0.00 total 0"""
    return PressureLine(float(words[2]), float(words[4]), float(words[6]), int(words[8]))
