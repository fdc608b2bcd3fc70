"""What a change of limits has to put back when the kernel takes only a part of it.

What was asked for before is known. What was not stands in the kernel: the CPUs that a container had of its parent, a
file of `unified` that nobody had named.
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
    "memory": {"limit": -1, "swap": -1},
    "pids": {"limit": -1},
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
            known = {**_UNSET.get(group, {}), **_in_force(cgroup, group, values), **(current.get(group) or {})}
            former[group] = {key: known[key] for key in values if known.get(key)}
    return former


def _huge_pages(current: Iterable[Resources], values: Iterable[Resources]) -> Iterator[Resources]:
    limits = {each["pageSize"]: each["limit"] for each in current}
    for size in (each["pageSize"] for each in values):
        if size in page_sizes():
            yield {"pageSize": size, "limit": limits.get(size, _UNLIMITED_PAGES)}


def _in_force(cgroup: Cgroup, group: str, keys: Iterable[str]) -> Resources:
    """What the kernel's own files say of those keys that no default stands for."""
    found: Resources = {}
    for key in keys:
        with contextlib.suppress(OSError, CgroupError):  # not there: then it was not changed either
            if group == "cpu" and key in ("cpus", "mems"):
                # On v2 the file itself is empty until somebody writes to it, and cannot be made so again.
                effective = ".effective" if cgroup.layout.version("cpuset") == 2 else ""
                found[key] = Path(cgroup.directory("cpuset"), f"cpuset.{key}{effective}").read_text().strip()
            elif group == "unified":
                found[key] = Path(cgroup.v2, key).read_text().strip()
    return found
