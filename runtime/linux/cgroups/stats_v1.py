"""Usage from cgroup v1 hierarchies, read through cgroupspy's typed controllers.

The package costs 4 ms to import, which a daemon pays once; shims set limits but read no usage, and never import it.
Its controllers need a node for nothing but to find files: no tree of the whole host is built, as its own API would.
"""

from __future__ import annotations

from collections import defaultdict

from cgroupspy.controllers import Controller, CpuAcctController, CpuController, MemoryController
from cgroupspy.interfaces import BaseFileInterface, IntegerFile

from runtime.linux.cgroups import files
from runtime.linux.cgroups.stats import CpuCounters, CpuStats, DeviceIo, MemoryCounters, MemoryStats, Pressure

#: v1 says "no limit" by the largest page counter; anything near it is one.
UNLIMITED = 1 << 62


class _Quick(Controller):  # type: ignore[misc]
    """Reads a file in three system calls; cgroupspy's own way takes ten, and five times as long."""

    def __init__(self, directory: str) -> None:
        super().__init__(None)
        self._directory = directory

    def get_property(self, filename: bytes) -> str:
        """The file's text."""
        return files.read(f"{self._directory}/{filename.decode('ascii')}").rstrip("\n")


class PairsFile(BaseFileInterface):  # type: ignore[misc]
    """`key value` lines as {key: text}: of some forty numbers, only the wanted ones are worth converting."""

    readonly = True

    def sanitize_get(self, value: str) -> dict[str, str]:
        """Parse the file's text."""
        words = value.split()
        return dict(zip(words[::2], words[1::2], strict=True))


class DeviceCountersFile(BaseFileInterface):  # type: ignore[misc]
    """`major:minor Operation count` lines and a total, as {(major, minor): {operation: count}}."""

    readonly = True

    def sanitize_get(self, value: str) -> dict[tuple[int, int], dict[str, int]]:
        """Parse the file's text; operations beside Read and Write are subsets of them."""
        counters: dict[tuple[int, int], dict[str, int]] = defaultdict(dict)
        for line in value.splitlines():
            if ":" in line:
                numbers, operation, count = line.split()
                major, minor = numbers.split(":")
                counters[int(major), int(minor)][operation] = int(count)
        return counters


class ThrottleController(_Quick):
    """The blkio files that count on every I/O scheduler; cgroupspy 0.2.3 leaves them out."""

    service_bytes = DeviceCountersFile("blkio.throttle.io_service_bytes_recursive")
    serviced = DeviceCountersFile("blkio.throttle.io_serviced_recursive")


class CpuTimeController(_Quick, CpuAcctController):  # type: ignore[misc]
    """Nanoseconds by mode, where cpuacct.stat has ticks of 10 ms (Linux 4.7)."""

    usage_user = IntegerFile("cpuacct.usage_user", readonly=True)
    usage_system = IntegerFile("cpuacct.usage_sys", readonly=True)


class QuotaController(_Quick, CpuController):  # type: ignore[misc]
    """How often the quota held a cgroup up."""


class MemoryUsageController(_Quick, MemoryController):  # type: ignore[misc]
    """Memory, with what cgroupspy leaves out or reads with more effort."""

    stat = PairsFile("memory.stat")
    kernel_usage = IntegerFile("memory.kmem.usage_in_bytes", readonly=True)


class HugePagesController(_Quick):
    """Files whose names have the page size in them, so that no class can list them."""

    def number(self, name: str) -> int:
        """The number in hugetlb.<name>; raises FileNotFoundError for a size that the kernel does not have."""
        return int(self.get_property(b"hugetlb." + name.encode("ascii")))


def cpu(cpuacct_directory: str, pressure: Pressure | None) -> CpuStats:
    """cpuacct.usage."""
    return CpuStats(CpuTimeController(cpuacct_directory).usage, pressure)


def cpu_counters(cpuacct_directory: str, cpu_directory: str) -> CpuCounters:
    """cpuacct times, and the CFS counters when the cpu hierarchy is there (directory not "")."""
    times = CpuTimeController(cpuacct_directory)
    throttling = QuotaController(cpu_directory).stat if cpu_directory else {}
    return CpuCounters(
        user_ns=times.usage_user,
        system_ns=times.usage_system,
        periods=throttling.get("nr_periods", 0),
        throttled_periods=throttling.get("nr_throttled", 0),
        throttled_ns=throttling.get("throttled_time", 0),
    )


def memory(directory: str, pressure: Pressure | None) -> MemoryStats:
    """memory.stat with the numbers of the whole subtree (`total_`)."""
    controller = MemoryUsageController(directory)
    usage, stat = controller.usage_in_bytes, controller.stat
    limit, swap_limit = _limits(controller)
    rss = int(stat["total_rss"])
    return MemoryStats(
        usage=usage,
        working_set=max(0, usage - int(stat["total_inactive_file"])),
        rss=rss,
        anon=rss,
        file=int(stat["total_cache"]),
        mapped=int(stat["total_mapped_file"]),
        page_faults=int(stat["total_pgfault"]),
        major_page_faults=int(stat["total_pgmajfault"]),
        limit=limit,
        swap=int(stat["total_swap"]) if "total_swap" in stat else None,
        swap_limit=swap_limit,
        pressure=pressure,
    )


def _limits(controller: MemoryUsageController) -> tuple[int | None, int | None]:
    """Of memory and of swap. Both together are never less than memory alone: without its limit there is neither."""
    limit: int = controller.limit_in_bytes
    if limit >= UNLIMITED:
        return None, None
    try:
        both: int = controller.memsw_limit_in_bytes
    except FileNotFoundError:  # no swap accounting
        return limit, None
    return limit, None if both >= UNLIMITED else max(0, both - limit)


def memory_counters(directory: str) -> MemoryCounters:
    """The kernel's part is 0 where the kernel is told not to account it (cgroup.memory=nokmem)."""
    controller = MemoryUsageController(directory)
    try:
        kernel = controller.kernel_usage
    except FileNotFoundError:
        kernel = 0
    return MemoryCounters(controller.max_usage_in_bytes, kernel, controller.failcnt)


def io(directory: str) -> tuple[DeviceIo, ...]:
    """One entry for each device that was read or written through the block layer."""
    controller = ThrottleController(directory)
    transferred, operations = controller.service_bytes, controller.serviced
    return tuple(
        DeviceIo(
            major=device[0],
            minor=device[1],
            read_bytes=counters.get("Read", 0),
            write_bytes=counters.get("Write", 0),
            read_ops=operations[device].get("Read", 0),
            write_ops=operations[device].get("Write", 0),
        )
        for device, counters in sorted(transferred.items())
    )


def huge_pages(directory: str, sizes: tuple[str, ...]) -> dict[str, tuple[int, int]]:
    """(usage, highest usage) by page size."""
    pages = HugePagesController(directory)
    return {
        size: (pages.number(f"{size}.usage_in_bytes"), pages.number(f"{size}.max_usage_in_bytes")) for size in sizes
    }
