"""Usage from cgroup v2 interface files (Documentation/admin-guide/cgroup-v2.rst)."""

from __future__ import annotations

from runtime.linux.cgroups import files
from runtime.linux.cgroups.stats import CpuCounters, CpuStats, DeviceIo, MemoryCounters, MemoryStats, Pressure

IO_KEYS = {"rbytes": "read_bytes", "wbytes": "write_bytes", "rios": "read_ops", "wios": "write_ops"}


def cpu(directory: str, pressure: Pressure | None) -> CpuStats:
    """cpu.stat, in microseconds there."""
    return CpuStats(int(files.read_words(f"{directory}/cpu.stat")["usage_usec"]) * 1000, pressure)


def cpu_counters(directory: str) -> CpuCounters:
    """cpu.stat; the quota's counters are missing without the controller."""
    stat = files.read_pairs(f"{directory}/cpu.stat")
    return CpuCounters(
        user_ns=stat["user_usec"] * 1000,
        system_ns=stat["system_usec"] * 1000,
        periods=stat.get("nr_periods", 0),
        throttled_periods=stat.get("nr_throttled", 0),
        throttled_ns=stat.get("throttled_usec", 0) * 1000,
    )


def memory(directory: str, pressure: Pressure | None) -> MemoryStats:
    """memory.current and memory.stat; `rss` is anon, as the CRI has it on v2."""
    usage = int(files.read(f"{directory}/memory.current"))
    stat = files.read_words(f"{directory}/memory.stat")
    anon = int(stat["anon"])
    return MemoryStats(
        usage=usage,
        working_set=max(0, usage - int(stat.get("inactive_file", 0))),
        rss=anon,
        anon=anon,
        file=int(stat["file"]),
        mapped=int(stat["file_mapped"]),
        page_faults=int(stat["pgfault"]),
        major_page_faults=int(stat["pgmajfault"]),
        limit=files.read_limit(f"{directory}/memory.max"),
        swap=_if_there(f"{directory}/memory.swap.current"),
        swap_limit=_if_there(f"{directory}/memory.swap.max"),
        pressure=pressure,
    )


def _if_there(path: str) -> int | None:
    """A number, or None when it is `max` or the kernel does not have the file."""
    try:
        return files.read_limit(path)
    except FileNotFoundError:
        return None


def memory_counters(directory: str) -> MemoryCounters:
    """memory.peak came with Linux 5.19, `kernel` in memory.stat with 5.18; 0 before."""
    return MemoryCounters(
        peak=_if_there(f"{directory}/memory.peak") or 0,
        kernel=int(files.read_words(f"{directory}/memory.stat").get("kernel", 0)),
        failures=files.read_pairs(f"{directory}/memory.events")["max"],
    )


def io(directory: str) -> tuple[DeviceIo, ...]:
    """io.stat: `major:minor key=value...` for each device."""
    return tuple(_device(line) for line in files.read(f"{directory}/io.stat").splitlines() if "=" in line)


def _device(line: str) -> DeviceIo:
    numbers, *words = line.split()
    major, minor = map(int, numbers.split(":"))
    values = dict(word.split("=", 1) for word in words)
    return DeviceIo(major, minor, **{name: int(values.get(key, 0)) for key, name in IO_KEYS.items()})


def huge_pages(directory: str, sizes: tuple[str, ...]) -> dict[str, tuple[int, int]]:
    """Usage by page size, twice: v2 keeps no highest one."""
    usage = {size: int(files.read(f"{directory}/hugetlb.{size}.current")) for size in sizes}
    return {size: (number, number) for size, number in usage.items()}
