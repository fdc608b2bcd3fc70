"""The metrics that we describe and deliver, under the names that dashboards know from the kubelet's /metrics/cadvisor.

A row is name, help, the labels beyond the common ones, and the kind. The set is fixed while crid runs, because clients
read the descriptors once (api.proto, ListMetricDescriptors).
"""

from __future__ import annotations

from dataclasses import dataclass

from cri.proto import api_pb2 as api

#: On every metric, in this order; the pod's own metrics have an empty container and image.
COMMON_LABELS = ("id", "name", "image", "container", "pod", "namespace")


@dataclass(frozen=True, slots=True)
class Descriptor:
    """One metric name."""

    name: str
    help: str
    labels: tuple[str, ...] = ()
    kind: api.MetricType = api.GAUGE

    def message(self) -> api.MetricDescriptor:
        return api.MetricDescriptor(name=self.name, help=self.help, label_keys=[*COMMON_LABELS, *self.labels])


def _counter(name: str, help: str, *labels: str) -> Descriptor:
    return Descriptor(f"container_{name}", help, labels, api.COUNTER)


def _gauge(name: str, help: str, *labels: str) -> Descriptor:
    return Descriptor(f"container_{name}", help, labels, api.GAUGE)


_DESCRIPTORS = (
    _counter("blkio_device_usage_total", "Bytes transferred by block device", "device", "major", "minor", "operation"),
    _counter("cpu_cfs_periods_total", "Enforcement periods of the CPU quota that have passed"),
    _counter("cpu_cfs_throttled_periods_total", "Periods in which the CPU quota ran out"),
    _counter("cpu_cfs_throttled_seconds_total", "Time during which tasks waited for CPU quota"),
    _counter("cpu_system_seconds_total", "CPU time in the kernel"),
    _counter("cpu_usage_seconds_total", "CPU time", "cpu"),
    _counter("cpu_user_seconds_total", "CPU time in user space"),
    _gauge("file_descriptors", "Open file descriptors"),
    _gauge("fs_inodes_free", "Free inodes of the file system", "device"),
    _gauge("fs_inodes_total", "Inodes of the file system", "device"),
    _gauge("fs_limit_bytes", "Size of the file system", "device"),
    _counter("fs_reads_bytes_total", "Bytes read", "device"),
    _counter("fs_reads_total", "Reads completed", "device"),
    _gauge("fs_usage_bytes", "Bytes in the writable layer", "device"),
    _counter("fs_writes_bytes_total", "Bytes written", "device"),
    _counter("fs_writes_total", "Writes completed", "device"),
    _gauge("hugetlb_max_usage_bytes", "Highest huge page usage seen", "pagesize"),
    _gauge("hugetlb_usage_bytes", "Huge page usage", "pagesize"),
    _gauge("last_seen", "When the container was last seen, seconds since the epoch"),
    _gauge("memory_cache", "Page cache memory"),
    _counter("memory_failcnt", "Times that the memory limit was hit"),
    _counter("memory_failures_total", "Page faults", "failure_type", "scope"),
    _gauge("memory_kernel_usage", "Kernel memory"),
    _gauge("memory_mapped_file", "Memory mapped files"),
    _gauge("memory_max_usage_bytes", "Highest memory usage seen"),
    _gauge("memory_rss", "Anonymous memory"),
    _gauge("memory_swap", "Swap usage"),
    _gauge("memory_usage_bytes", "Memory usage, caches included"),
    _gauge("memory_working_set_bytes", "Memory usage less inactive file cache"),
    _counter("network_receive_bytes_total", "Bytes received", "interface"),
    _counter("network_receive_errors_total", "Receive errors", "interface"),
    _counter("network_receive_packets_dropped_total", "Packets dropped on receive", "interface"),
    _counter("network_receive_packets_total", "Packets received", "interface"),
    _counter("network_transmit_bytes_total", "Bytes sent", "interface"),
    _counter("network_transmit_errors_total", "Transmit errors", "interface"),
    _counter("network_transmit_packets_dropped_total", "Packets dropped on transmit", "interface"),
    _counter("network_transmit_packets_total", "Packets sent", "interface"),
    _counter("oom_events_total", "Processes killed for lack of memory"),
    _counter("pressure_cpu_stalled_seconds_total", "Time in which all tasks waited for CPU"),
    _counter("pressure_cpu_waiting_seconds_total", "Time in which some task waited for CPU"),
    _counter("pressure_io_stalled_seconds_total", "Time in which all tasks waited for I/O"),
    _counter("pressure_io_waiting_seconds_total", "Time in which some task waited for I/O"),
    _counter("pressure_memory_stalled_seconds_total", "Time in which all tasks waited for memory"),
    _counter("pressure_memory_waiting_seconds_total", "Time in which some task waited for memory"),
    _gauge("processes", "Processes"),
    _gauge("sockets", "Open sockets"),
    _gauge("spec_cpu_period", "Period of the CPU quota in microseconds"),
    _gauge("spec_cpu_quota", "CPU quota in microseconds for each period"),
    _gauge("spec_cpu_shares", "CPU shares"),
    _gauge("spec_memory_limit_bytes", "Memory limit, 0 for none"),
    _gauge("spec_memory_reservation_limit_bytes", "Memory reservation, 0 for none"),
    _gauge("spec_memory_swap_limit_bytes", "Limit of memory and swap together, 0 for none"),
    _gauge("start_time_seconds", "Start of the container, seconds since the epoch"),
    _gauge("threads", "Threads"),
    _gauge("threads_max", "Most threads allowed, 0 for no limit"),
    _gauge("ulimits_soft", "Soft limits of the first process, 0 for none", "ulimit"),
)

DESCRIPTORS = {descriptor.name: descriptor for descriptor in _DESCRIPTORS}

#: Full name and kind by the name without `container_`.
KINDS = {name.removeprefix("container_"): (name, row.kind) for name, row in DESCRIPTORS.items()}
