"""ListMetricDescriptors, ListPodSandboxMetrics and StreamPodSandboxMetrics."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from cri.proto import api_pb2 as api
from cri.server.batches import batches
from cri.server.container_stats import cgroup_of, if_there
from cri.server.daemon import Daemon
from cri.server.metric_table import DESCRIPTORS, KINDS
from cri.server.network_usage import Traffic, traffic
from cri.server.open_files import open_files
from cri.server.pods import Container, Sandbox
from runtime.linux.cgroups import Cgroup
from runtime.linux.cgroups.counters import read_counters
from runtime.linux.cgroups.stats import Counters, CpuCounters, DeviceIo, MemoryStats, PidsStats, Pressure, Stats
from runtime.linux.cgroups.usage import read_pids, read_stats

SECOND = 1_000_000_000

Sample = tuple[str, int, tuple[str, ...]]
"""Name without `container_`, value, values of the metric's own labels."""


async def list_metric_descriptors(
    daemon: Daemon, request: api.ListMetricDescriptorsRequest
) -> api.ListMetricDescriptorsResponse:
    return api.ListMetricDescriptorsResponse(descriptors=[row.message() for row in DESCRIPTORS.values()])


async def list_pod_sandbox_metrics(
    daemon: Daemon, request: api.ListPodSandboxMetricsRequest
) -> api.ListPodSandboxMetricsResponse:
    response = api.ListPodSandboxMetricsResponse()
    await _collect(daemon, _ready(daemon), response.pod_metrics)
    return response


async def stream_pod_sandbox_metrics(
    daemon: Daemon, request: api.StreamPodSandboxMetricsRequest
) -> AsyncIterator[api.StreamPodSandboxMetricsResponse]:
    for batch in batches(_ready(daemon), Sandbox.weight):
        response = api.StreamPodSandboxMetricsResponse()
        await _collect(daemon, batch, response.pod_sandbox_metrics)
        yield response


def _ready(daemon: Daemon) -> Iterator[Sandbox]:
    return (sandbox for sandbox in daemon.store.sandboxes if sandbox.ready)


async def _collect(daemon: Daemon, sandboxes: Iterable[Sandbox], into: Any) -> None:
    """Add each pod's PodSandboxMetrics `into` a repeated field: seven thousand messages are better not copied."""
    jobs = [await _job(daemon, sandbox) for sandbox in sandboxes]
    filesystem = _Filesystem.of(str(daemon.config.root))

    def run() -> None:
        for job in jobs:
            job.run(filesystem, into.add(pod_sandbox_id=job.sandbox.id))

    await asyncio.to_thread(run)


@dataclass(frozen=True, slots=True)
class _Filesystem:
    """The file system of the writable layers."""

    path: str
    size: int
    inodes: int
    free_inodes: int

    @classmethod
    def of(cls, path: str) -> _Filesystem:
        status = os.statvfs(path)
        return cls(path, status.f_blocks * status.f_frsize, status.f_files, status.f_ffree)


@dataclass(frozen=True, slots=True)
class _Job:
    """What a thread needs to read one pod's metrics, collected in the event loop."""

    sandbox: Sandbox
    containers: list[tuple[Container, int]]
    """With the size of its writable layer in bytes."""

    def run(self, filesystem: _Filesystem, message: api.PodSandboxMetrics) -> None:
        sandbox = self.sandbox
        if sandbox.pod is not None and not sandbox.host_network:
            labels = _labels(sandbox, sandbox.cgroup, sandbox.id, "", "")
            _add(message.metrics, labels, _network_samples(traffic(sandbox.pod.shim)))
        for container, layer in self.containers:
            _fill(message.container_metrics.add(container_id=container.id), container, layer, filesystem)


async def _job(daemon: Daemon, sandbox: Sandbox) -> _Job:
    running = [container for container in sandbox.containers.values() if container.running]
    layers = [await daemon.layers.of(container.snapshots[0]) for container in running]
    sizes = [layer.used_bytes.value if layer else 0 for layer in layers]
    return _Job(sandbox, list(zip(running, sizes, strict=True)))


def _fill(message: api.ContainerMetrics, container: Container, layer: int, filesystem: _Filesystem) -> None:
    cgroup = cgroup_of(container)
    if (read := if_there(cgroup, _read)) is None:
        return
    config = container.config
    labels = _labels(container.sandbox, cgroup.path, container.id, container.image_name, config.metadata.name)
    for samples in (
        _usage_samples(read.stats),
        _counter_samples(read.counters),
        _process_samples(read),
        _filesystem_samples(layer, filesystem),
        _spec_samples(container),
    ):
        _add(message.metrics, labels, samples)


@dataclass(frozen=True, slots=True)
class _Read:
    """What a container's cgroup says."""

    stats: Stats
    counters: Counters
    tasks: PidsStats | None
    oom_kills: int
    processes: list[int]


def _read(cgroup: Cgroup) -> _Read:
    return _Read(read_stats(cgroup), read_counters(cgroup), read_pids(cgroup), cgroup.oom_kills(), cgroup.procs())


def _labels(sandbox: Sandbox, cgroup: str, id: str, image: str, container: str) -> tuple[str, ...]:
    """Values of metric_table.COMMON_LABELS."""
    metadata = sandbox.config.metadata
    return cgroup, id, image, container, metadata.name, metadata.namespace


def _add(metrics: Any, labels: tuple[str, ...], samples: Iterable[Sample]) -> None:
    """A timestamp of 0 says that the value was read just now (api.proto, Metric)."""
    labelled = api.Metric(label_values=labels)
    for name, number, own in samples:
        message = metrics.add()
        message.MergeFrom(labelled)  # half the time of handing it the same labels again
        message.name, message.metric_type = KINDS[name]
        if own:
            message.label_values.extend(own)
        message.value.value = max(0, number)


def _usage_samples(stats: Stats) -> Iterator[Sample]:
    yield "last_seen", stats.timestamp_ns // SECOND, ()
    if stats.cpu:
        yield "cpu_usage_seconds_total", stats.cpu.usage_ns // SECOND, ("total",)
        yield from _pressure_samples("cpu", stats.cpu.pressure)
    if stats.memory:
        yield from _memory_samples(stats.memory)
        yield from _pressure_samples("memory", stats.memory.pressure)
    yield from _pressure_samples("io", stats.io)


def _counter_samples(counters: Counters) -> Iterator[Sample]:
    if counters.cpu:
        yield from _cpu_samples(counters.cpu)
    if counters.memory:
        yield "memory_max_usage_bytes", counters.memory.peak, ()
        yield "memory_failcnt", counters.memory.failures, ()
        yield "memory_kernel_usage", counters.memory.kernel, ()
    yield from _io_samples(counters.io)
    for size, (usage, highest) in counters.huge_pages.items():
        yield "hugetlb_usage_bytes", usage, (size,)
        yield "hugetlb_max_usage_bytes", highest, (size,)


def _cpu_samples(cpu: CpuCounters) -> Iterator[Sample]:
    yield "cpu_user_seconds_total", cpu.user_ns // SECOND, ()
    yield "cpu_system_seconds_total", cpu.system_ns // SECOND, ()
    yield "cpu_cfs_periods_total", cpu.periods, ()
    yield "cpu_cfs_throttled_periods_total", cpu.throttled_periods, ()
    yield "cpu_cfs_throttled_seconds_total", cpu.throttled_ns // SECOND, ()


def _memory_samples(memory: MemoryStats) -> Iterator[Sample]:
    yield "memory_usage_bytes", memory.usage, ()
    yield "memory_working_set_bytes", memory.working_set, ()
    yield "memory_rss", memory.rss, ()
    yield "memory_cache", memory.file, ()
    yield "memory_mapped_file", memory.mapped, ()
    yield "memory_swap", memory.swap or 0, ()
    for scope in ("container", "hierarchy"):
        yield "memory_failures_total", memory.page_faults, ("pgfault", scope)
        yield "memory_failures_total", memory.major_page_faults, ("pgmajfault", scope)


def _io_samples(devices: Iterable[DeviceIo]) -> Iterator[Sample]:
    for device in devices:
        numbers = str(device.major), str(device.minor)
        name = f"{device.major}:{device.minor}"
        yield "blkio_device_usage_total", device.read_bytes, (name, *numbers, "Read")
        yield "blkio_device_usage_total", device.write_bytes, (name, *numbers, "Write")
        yield "fs_reads_bytes_total", device.read_bytes, (name,)
        yield "fs_reads_total", device.read_ops, (name,)
        yield "fs_writes_bytes_total", device.write_bytes, (name,)
        yield "fs_writes_total", device.write_ops, (name,)


def _pressure_samples(resource: str, pressure: Pressure | None) -> Iterator[Sample]:
    if pressure:
        yield f"pressure_{resource}_waiting_seconds_total", pressure.some.total // 1_000_000, ()
        yield f"pressure_{resource}_stalled_seconds_total", pressure.full.total // 1_000_000, ()


def _process_samples(read: _Read) -> Iterator[Sample]:
    files = open_files(read.processes)
    yield "processes", len(read.processes), ()
    yield "file_descriptors", files.descriptors, ()
    yield "sockets", files.sockets, ()
    yield "ulimits_soft", files.soft_limit, ("max_open_files",)
    yield "oom_events_total", read.oom_kills, ()
    if read.tasks:
        yield "threads", read.tasks.current, ()
        yield "threads_max", read.tasks.limit or 0, ()


def _filesystem_samples(layer: int, filesystem: _Filesystem) -> Iterator[Sample]:
    device = (filesystem.path,)
    yield "fs_usage_bytes", layer, device
    yield "fs_limit_bytes", filesystem.size, device
    yield "fs_inodes_total", filesystem.inodes, device
    yield "fs_inodes_free", filesystem.free_inodes, device


def _spec_samples(container: Container) -> Iterator[Sample]:
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


def _network_samples(interfaces: Iterable[Traffic]) -> Iterator[Sample]:
    for interface in interfaces:
        for name, counter in _TRAFFIC:
            yield name, counter(interface), (interface.name,)
