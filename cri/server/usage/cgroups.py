"""Usage of cgroups as the interface's messages; what the host cannot tell is left out, never zero.

The messages are filled where they stand in the answer: with a hundred pods, building and copying them took longer than
reading the kernel's files.

Rates need two samples: usage_nano_cores is measured against the last sample that is old enough, so that two clients
that ask in turn do not measure each other's microseconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from cri.proto import api_pb2 as api
from runtime.linux.cgroups.stats import MemoryStats, Pressure, PressureLine, Stats

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


class _HasUsage(Protocol):
    """What ContainerStats and LinuxPodSandboxStats have in common."""

    @property
    def cpu(self) -> api.CpuUsage: ...
    @property
    def memory(self) -> api.MemoryUsage: ...
    @property
    def io(self) -> api.IoUsage: ...


def fill(message: _HasUsage, id: str, stats: Stats, rates: Rates) -> None:
    """The parts that a container and a pod both have; `id` is whose rate it is."""
    if stats.cpu is not None:
        message.cpu.timestamp = stats.timestamp_ns
        message.cpu.usage_core_nano_seconds.value = stats.cpu.usage_ns
        rate = rates.nano_cores(id, stats.timestamp_ns, stats.cpu.usage_ns)
        if rate is not None:
            message.cpu.usage_nano_cores.value = rate
        _fill_psi(message.cpu.psi, stats.cpu.pressure)
    if stats.memory is not None:
        message.memory.timestamp = stats.timestamp_ns
        _fill_memory(message.memory, stats.memory)
    if stats.io is not None:
        message.io.timestamp = stats.timestamp_ns
        _fill_psi(message.io.psi, stats.io)


def _fill_memory(message: api.MemoryUsage, memory: MemoryStats) -> None:
    message.working_set_bytes.value = memory.working_set
    if memory.limit is not None:
        message.available_bytes.value = max(0, memory.limit - memory.working_set)
    message.usage_bytes.value = memory.usage
    message.rss_bytes.value = memory.rss
    message.page_faults.value = memory.page_faults
    message.major_page_faults.value = memory.major_page_faults
    _fill_psi(message.psi, memory.pressure)


def fill_swap(message: api.SwapUsage, stats: Stats) -> None:
    """Nothing without swap accounting; what is available only under a limit."""
    memory = stats.memory
    if memory is None or memory.swap is None:
        return
    message.timestamp = stats.timestamp_ns
    message.swap_usage_bytes.value = memory.swap
    if memory.swap_limit is not None:
        message.swap_available_bytes.value = max(0, memory.swap_limit - memory.swap)


def _fill_psi(message: api.PsiStats, pressure: Pressure | None) -> None:
    if pressure is not None:
        _fill_line(message.Some, pressure.some)
        _fill_line(message.Full, pressure.full)


def _fill_line(message: api.PsiData, line: PressureLine) -> None:
    # The kernel counts in microseconds, the interface in nanoseconds.
    message.Total = line.total * MICROSECOND
    message.Avg10, message.Avg60, message.Avg300 = line.avg10, line.avg60, line.avg300
