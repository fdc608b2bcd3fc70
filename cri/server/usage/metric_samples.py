"""What the kernel says about a container, as samples of the metrics in metric_table.py."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from cri.server.pods import Container
from cri.server.usage.metric_rows import Sample
from cri.server.usage.network import Traffic
from cri.server.usage.open_files import open_files
from runtime.linux.cgroups.stats import Counters, CpuCounters, DeviceIo, MemoryStats, PidsStats, Pressure, Stats

SECOND = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Filesystem:
    """The file system of the writable layers."""

    device: str
    size: int
    inodes: int
    free_inodes: int

    @classmethod
    def of(cls, path: str) -> Filesystem:
        """The one that a path is on; raises OSError."""
        status, number = os.statvfs(path), os.stat(path).st_dev
        return cls(
            _device(os.major(number), os.minor(number)) or path,
            status.f_blocks * status.f_frsize,
            status.f_files,
            status.f_ffree,
        )


def of_usage(stats: Stats) -> Iterator[Sample]:
    """What it uses now."""
    yield "last_seen", stats.timestamp_ns // SECOND, ()
    if stats.cpu:
        yield "cpu_usage_seconds_total", stats.cpu.usage_ns // SECOND, ("total",)
        yield from _of_pressure("cpu", stats.cpu.pressure)
    if stats.memory:
        yield from _of_memory(stats.memory)
        yield from _of_pressure("memory", stats.memory.pressure)
    yield from _of_pressure("io", stats.io)


def of_counters(counters: Counters) -> Iterator[Sample]:
    """What it has used, and where its limits held it up."""
    if counters.cpu:
        yield from _of_cpu(counters.cpu)
    if counters.memory:
        yield "memory_max_usage_bytes", counters.memory.peak, ()
        yield "memory_failcnt", counters.memory.failures, ()
        yield "memory_kernel_usage", counters.memory.kernel, ()
    yield from _of_io(counters.io)
    for size, (usage, highest) in counters.huge_pages.items():
        yield "hugetlb_usage_bytes", usage, (size,)
        yield "hugetlb_max_usage_bytes", highest, (size,)


def _of_cpu(cpu: CpuCounters) -> Iterator[Sample]:
    yield "cpu_user_seconds_total", cpu.user_ns // SECOND, ()
    yield "cpu_system_seconds_total", cpu.system_ns // SECOND, ()
    yield "cpu_cfs_periods_total", cpu.periods, ()
    yield "cpu_cfs_throttled_periods_total", cpu.throttled_periods, ()
    yield "cpu_cfs_throttled_seconds_total", cpu.throttled_ns // SECOND, ()


def _of_memory(memory: MemoryStats) -> Iterator[Sample]:
    yield "memory_usage_bytes", memory.usage, ()
    yield "memory_working_set_bytes", memory.working_set, ()
    yield "memory_rss", memory.rss, ()
    yield "memory_cache", memory.file, ()
    yield "memory_mapped_file", memory.mapped, ()
    yield "memory_swap", memory.swap or 0, ()
    for scope in ("container", "hierarchy"):
        yield "memory_failures_total", memory.page_faults, ("pgfault", scope)
        yield "memory_failures_total", memory.major_page_faults, ("pgmajfault", scope)


def _of_io(devices: Iterable[DeviceIo]) -> Iterator[Sample]:
    for device in devices:
        numbers = str(device.major), str(device.minor)
        name = _device(device.major, device.minor) or ":".join(numbers)
        yield "blkio_device_usage_total", device.read_bytes, (name, *numbers, "Read")
        yield "blkio_device_usage_total", device.write_bytes, (name, *numbers, "Write")
        yield "fs_reads_bytes_total", device.read_bytes, (name,)
        yield "fs_reads_total", device.read_ops, (name,)
        yield "fs_writes_bytes_total", device.write_bytes, (name,)
        yield "fs_writes_total", device.write_ops, (name,)


@functools.lru_cache(256)
def _device(major: int, minor: int) -> str:
    """The path of a block device, empty where a file system's number is that of none."""
    try:
        return "/dev/" + os.path.basename(os.readlink(f"/sys/dev/block/{major}:{minor}"))
    except FileNotFoundError:
        return ""


def _of_pressure(resource: str, pressure: Pressure | None) -> Iterator[Sample]:
    if pressure:
        yield f"pressure_{resource}_waiting_seconds_total", pressure.some.total // 1_000_000, ()
        yield f"pressure_{resource}_stalled_seconds_total", pressure.full.total // 1_000_000, ()


def of_processes(processes: Sequence[int], tasks: PidsStats | None, oom_kills: int) -> Iterator[Sample]:
    """How many there are, what they have open, and what the OOM killer has taken. Reads /proc of each."""
    files = open_files(processes)
    yield "processes", len(processes), ()
    yield "file_descriptors", files.descriptors, ()
    yield "sockets", files.sockets, ()
    yield "ulimits_soft", files.soft_limit, ("max_open_files",)
    yield "oom_events_total", oom_kills, ()
    if tasks:
        yield "threads", tasks.current, ()
        yield "threads_max", tasks.limit or 0, ()


def of_filesystem(layer: int | None, filesystem: Filesystem) -> Iterator[Sample]:
    """The writable layer, whose size in bytes is `layer` if that is known, and the file system that it is on."""
    device = (filesystem.device,)
    if layer is not None:
        yield "fs_usage_bytes", layer, device
    yield "fs_limit_bytes", filesystem.size, device
    yield "fs_inodes_total", filesystem.inodes, device
    yield "fs_inodes_free", filesystem.free_inodes, device


def of_spec(container: Container) -> Iterator[Sample]:
    """When it was started, and the limits that were asked for."""
    resources = container.resources
    yield "start_time_seconds", container.started_at // SECOND, ()
    yield "spec_cpu_period", resources.cpu_period, ()
    yield "spec_cpu_quota", resources.cpu_quota, ()
    yield "spec_cpu_shares", resources.cpu_shares, ()
    yield "spec_memory_limit_bytes", resources.memory_limit_in_bytes, ()
    yield "spec_memory_reservation_limit_bytes", _number(resources.unified.get("memory.low", "")), ()
    yield "spec_memory_swap_limit_bytes", resources.memory_swap_limit_in_bytes, ()


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdecimal() else 0


_TRAFFIC: tuple[tuple[str, Callable[[Traffic], int]], ...] = (
    ("network_receive_bytes_total", lambda interface: interface.rx_bytes),
    ("network_receive_packets_total", lambda interface: interface.rx_packets),
    ("network_receive_errors_total", lambda interface: interface.rx_errors),
    ("network_receive_packets_dropped_total", lambda interface: interface.rx_dropped),
    ("network_transmit_bytes_total", lambda interface: interface.tx_bytes),
    ("network_transmit_packets_total", lambda interface: interface.tx_packets),
    ("network_transmit_errors_total", lambda interface: interface.tx_errors),
    ("network_transmit_packets_dropped_total", lambda interface: interface.tx_dropped),
)


def of_network(interfaces: Iterable[Traffic]) -> Iterator[Sample]:
    """The traffic of a pod's interfaces."""
    for interface in interfaces:
        for name, counter in _TRAFFIC:
            yield name, counter(interface), (interface.name,)
