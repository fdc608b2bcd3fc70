"""Usage of cgroups as the interface's messages; what the host cannot tell is left out, never zero.

Rates need two samples: usage_nano_cores is measured against the last sample that is old enough, so that two clients
that ask in turn do not measure each other's microseconds.
"""

from __future__ import annotations

from dataclasses import dataclass

from cri.proto import api_pb2 as api
from runtime.linux.cgroups.stats import CpuStats, IoStats, MemoryStats, Pressure, PressureLine, Stats

MIN_WINDOW_NS = 1_000_000_000
MICROSECOND = 1000


@dataclass(frozen=True, slots=True)
class _Sample:
    timestamp: int
    usage: int
    rate: int | None


class Rates:
    """The last CPU samples by container or sandbox id."""

    def __init__(self) -> None:
        self._samples: dict[str, _Sample] = {}

    def nano_cores(self, id: str, timestamp: int, usage: int) -> int | None:
        """CPU nanoseconds per second since the last sample; None for the first one."""
        last = self._samples.get(id)
        if last is None or timestamp - last.timestamp < MIN_WINDOW_NS:
            if last is None:
                self._samples[id] = _Sample(timestamp, usage, None)
            return last.rate if last else None
        rate = max(0, usage - last.usage) * 1_000_000_000 // (timestamp - last.timestamp)
        self._samples[id] = _Sample(timestamp, usage, rate)
        return rate

    def forget(self, id: str) -> None:
        self._samples.pop(id, None)


def value(number: int | None) -> api.UInt64Value | None:
    return None if number is None else api.UInt64Value(value=max(0, number))


def cpu_usage(stats: Stats, rate: int | None) -> api.CpuUsage | None:
    cpu: CpuStats | None = stats.cpu
    if cpu is None:
        return None
    return api.CpuUsage(
        timestamp=stats.timestamp_ns,
        usage_core_nano_seconds=value(cpu.usage_ns),
        usage_nano_cores=value(rate),
        psi=psi(cpu.pressure),
    )


def memory_usage(stats: Stats) -> api.MemoryUsage | None:
    memory: MemoryStats | None = stats.memory
    if memory is None:
        return None
    available = None if memory.limit is None else memory.limit - memory.working_set
    return api.MemoryUsage(
        timestamp=stats.timestamp_ns,
        working_set_bytes=value(memory.working_set),
        available_bytes=value(available),
        usage_bytes=value(memory.usage),
        rss_bytes=value(memory.rss),
        page_faults=value(memory.page_faults),
        major_page_faults=value(memory.major_page_faults),
        psi=psi(memory.pressure),
    )


def swap_usage(stats: Stats) -> api.SwapUsage | None:
    memory = stats.memory
    if memory is None or memory.swap is None:
        return None
    available = None if memory.swap_limit is None else memory.swap_limit - memory.swap
    return api.SwapUsage(
        timestamp=stats.timestamp_ns, swap_available_bytes=value(available), swap_usage_bytes=value(memory.swap)
    )


def io_usage(stats: Stats) -> api.IoUsage | None:
    io: IoStats | None = stats.io
    if io is None:
        return None
    return api.IoUsage(timestamp=stats.timestamp_ns, psi=psi(io.pressure))


def psi(pressure: Pressure | None) -> api.PsiStats | None:
    if pressure is None:
        return None
    return api.PsiStats(Some=_line(pressure.some), Full=_line(pressure.full))


def _line(line: PressureLine) -> api.PsiData:
    # The kernel counts in microseconds, the interface in nanoseconds.
    return api.PsiData(Total=line.total * MICROSECOND, Avg10=line.avg10, Avg60=line.avg60, Avg300=line.avg300)
