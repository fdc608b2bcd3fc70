"""What a change of limits has to put back when the kernel takes only a part of it.

What was asked for before is known. What was not has a default, or stands in the kernel: the CPUs that a container had
of its parent, its reservation of memory, a file of `unified` that nobody had named.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from runtime.linux.cgroups import Cgroup, CgroupError
from runtime.linux.cgroups.counters import page_sizes

Resources = dict[str, Any]

#: What takes a limit away again, for values that were not set before (runtime-spec, config-linux.md).
_UNSET: Mapping[str, Resources] = {
    "cpu": {"shares": 1024, "quota": -1, "period": 100_000},
    "memory": {"limit": -1, "swap": -1, "disableOOMKiller": False},
    "pids": {"limit": -1},
}
#: The kernel's files for what no default stands for, by their controller's version.
_FILES: Mapping[tuple[str, str], Mapping[int, str]] = {
    # On v2 the file itself is empty until somebody writes to it, and cannot be made so again.
    ("cpu", "cpus"): {1: "cpuset.cpus", 2: "cpuset.cpus.effective"},
    ("cpu", "mems"): {1: "cpuset.mems", 2: "cpuset.mems.effective"},
    ("cpu", "realtimePeriod"): {1: "cpu.rt_period_us"},
    ("cpu", "realtimeRuntime"): {1: "cpu.rt_runtime_us"},
    ("memory", "reservation"): {1: "memory.soft_limit_in_bytes", 2: "memory.low"},
    ("memory", "kernelTCP"): {1: "memory.kmem.tcp.limit_in_bytes"},
    ("memory", "swappiness"): {1: "memory.swappiness"},
}
#: Bytes: what the kernel makes of every larger number, and shows as "max".
_UNLIMITED_PAGES = (1 << 63) - 4096


def former_limits(cgroup: Cgroup, current: Resources, change: Resources) -> Resources:
    """What takes `change` back: the value before it of all that it touches; `current` is linux.resources. Blocks."""
    former: Resources = {}
    for group, values in change.items():
        if group == "hugepageLimits":
            former[group] = list(_huge_pages(current.get(group) or (), values))
        elif isinstance(values, dict):
            known = {**_UNSET.get(group, {}), **_in_force(cgroup, group, values), **_stated(group, current)}
            former[group] = {key: known[key] for key in values if known.get(key, "") != ""}
    return former


def _huge_pages(current: Iterable[Resources], values: Iterable[Resources]) -> Iterator[Resources]:
    limits = {each["pageSize"]: each["limit"] for each in current}
    for size in (each["pageSize"] for each in values):
        if size in page_sizes():
            yield {"pageSize": size, "limit": limits.get(size, _UNLIMITED_PAGES)}


def _stated(group: str, current: Resources) -> Resources:
    """What was asked for; 0 is as if it was not, but of pids (runtime-spec, config-linux.md)."""
    values: Resources = current.get(group) or {}
    return {key: value for key, value in values.items() if value or (group == "pids" and value == 0)}


def _in_force(cgroup: Cgroup, group: str, keys: Iterable[str]) -> Resources:
    """What the kernel's own files say of those keys that no default stands for."""
    found: Resources = {}
    for key in keys:
        with contextlib.suppress(OSError, CgroupError):  # not there: then it was not changed either
            if group == "unified":
                found[key] = Path(cgroup.v2, key).read_text().strip()
            elif file := _file(cgroup, group, key):
                text = file.read_text().strip()
                found[key] = text if file.name.startswith("cpuset.") else -1 if text == "max" else int(text)
    return found


def _file(cgroup: Cgroup, group: str, key: str) -> Path | None:
    """Raises CgroupError."""
    names = _FILES.get((group, key), {})
    for version, name in names.items():
        controller = name.partition(".")[0]
        if cgroup.layout.version(controller) == version:
            return Path(cgroup.directory(controller), name)
    return None
