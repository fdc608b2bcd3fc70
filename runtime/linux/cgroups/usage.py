"""Reads a cgroup's usage from wherever this host keeps each part of it."""

from __future__ import annotations

import errno
import time
from typing import TYPE_CHECKING

from runtime.linux.cgroups import files, stats_v2
from runtime.linux.cgroups.stats import CpuStats, IoStats, MemoryStats, PidsStats, Pressure, PressureLine, Stats

if TYPE_CHECKING:
    from runtime.linux.cgroups.cgroup import Cgroup


def read_stats(cgroup: Cgroup) -> Stats:
    """The usage now; raises FileNotFoundError (or OSError with ENODEV) when the cgroup is gone."""
    return Stats(time.time_ns(), _cpu(cgroup), _memory(cgroup), _pids(cgroup), _io(cgroup))


def _cpu(cgroup: Cgroup) -> CpuStats | None:
    pressure = _pressure(cgroup, "cpu")
    if cgroup.layout.version("cpuacct") == 1:
        from runtime.linux.cgroups import stats_v1

        cpu = cgroup.directory("cpu") if cgroup.layout.version("cpu") == 1 else ""
        return stats_v1.cpu(cgroup.directory("cpuacct"), cpu, pressure)
    # cpu.stat counts time on v2 whether or not the controller is enabled.
    return stats_v2.cpu(cgroup.v2, pressure) if cgroup.v2 else None


def _memory(cgroup: Cgroup) -> MemoryStats | None:
    version = cgroup.layout.version("memory")
    if not version:
        return None
    pressure = _pressure(cgroup, "memory")
    if version == 2:
        return stats_v2.memory(cgroup.v2, pressure)
    from runtime.linux.cgroups import stats_v1

    return stats_v1.memory(cgroup.directory("memory"), pressure)


def _pids(cgroup: Cgroup) -> PidsStats | None:
    """pids.current and pids.max: the same files on both versions."""
    if not cgroup.layout.version("pids"):
        return None
    directory = cgroup.directory("pids")
    return PidsStats(int(files.read(f"{directory}/pids.current")), files.read_limit(f"{directory}/pids.max"))


def _io(cgroup: Cgroup) -> IoStats | None:
    pressure = _pressure(cgroup, "io")
    if cgroup.layout.version("blkio") == 1:
        from runtime.linux.cgroups import stats_v1

        return IoStats(stats_v1.io(cgroup.directory("blkio")), pressure)
    if cgroup.layout.version("io") == 2:
        return IoStats(stats_v2.io(cgroup.v2), pressure)
    return None


def _pressure(cgroup: Cgroup, resource: str) -> Pressure | None:
    """PSI comes from v2 on every host that has it, also where the controller itself is on v1."""
    if not cgroup.v2:
        return None
    try:
        lines = files.read(f"{cgroup.v2}/{resource}.pressure").splitlines()
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:  # psi=0 on the kernel command line
            return None
        raise
    by_name = {name: _pressure_line(words) for name, *words in map(str.split, lines)}
    # Before Linux 5.13 cpu.pressure has no `full` line.
    return Pressure(by_name["some"], by_name.get("full", PressureLine(0.0, 0.0, 0.0, 0)))


def _pressure_line(words: list[str]) -> PressureLine:
    values = dict(word.split("=") for word in words)
    return PressureLine(float(values["avg10"]), float(values["avg60"]), float(values["avg300"]), int(values["total"]))
