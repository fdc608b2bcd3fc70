"""OCI `linux.resources` in the words of cgroup v2 (Documentation/admin-guide/cgroup-v2.rst)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from runtime.linux.cgroups.convert import blkio_to_io_weight, number_or_max, shares_to_weight, swap_to_v2
from runtime.linux.cgroups.errors import InvalidResources, MissingController
from runtime.linux.cgroups.setting import Setting, Settings

DEFAULT_PERIOD = 100_000  # microseconds: what cpu.max holds until it is written
THROTTLES = (
    ("throttleReadBpsDevice", "rbps"),
    ("throttleWriteBpsDevice", "wbps"),
    ("throttleReadIOPSDevice", "riops"),
    ("throttleWriteIOPSDevice", "wiops"),
)
#: Of the files that every cgroup has whatever its controllers are, those that hold limits. The others move processes
#: into a cgroup, by any pid of the host, and end, freeze and delegate them.
CORE_LIMITS = frozenset({"cgroup.max.depth", "cgroup.max.descendants"})


def cpu(section: Mapping[str, Any]) -> Settings:
    """Weight or idle, bandwidth and burst; realtime groups exist on v1 only."""
    for field in ("realtimeRuntime", "realtimePeriod"):
        if section.get(field):
            raise MissingController("cpu (cgroup v1)", f"cpu.{field}")
    if section.get("idle") is not None:
        yield Setting("cpu", "cpu.idle", str(section["idle"]), "cpu.idle")
    if section.get("shares") and not section.get("idle"):  # an idle group has no weight to set
        yield Setting("cpu", "cpu.weight", str(shares_to_weight(section["shares"])), "cpu.shares")
    quota, period = section.get("quota") or 0, section.get("period") or 0
    if quota or period:
        # cpu.max is one value: a quota that is not given stays out of the way as `max`.
        value = f"{number_or_max(quota or -1)} {period or DEFAULT_PERIOD}"
        yield Setting("cpu", "cpu.max", value, "cpu.quota" if quota else "cpu.period")
    if section.get("burst"):
        yield Setting("cpu", "cpu.max.burst", str(section["burst"]), "cpu.burst")


def memory(section: Mapping[str, Any]) -> Settings:
    """Limits; `reservation` becomes memory.low, as in runc and crun."""
    for field in ("swappiness", "disableOOMKiller", "kernelTCP"):
        if section.get(field):
            raise MissingController("memory (cgroup v1)", f"memory.{field}")
    limit, swap = section.get("limit") or 0, section.get("swap") or 0
    if limit < 0 and not swap:
        swap = -1  # v1 lifts both together, and callers rely on it
    if swap:
        swap_max = number_or_max(swap_to_v2(swap, limit))
        # A kernel without swap accounting has no file, and a host without swap nothing to limit.
        yield Setting("memory", "memory.swap.max", swap_max, "memory.swap", swap_max in ("max", "0"))
    if limit:
        yield Setting("memory", "memory.max", number_or_max(limit), "memory.limit")
    if (reserved := section.get("reservation")) is not None:
        yield Setting("memory", "memory.low", number_or_max(reserved), "memory.reservation", not reserved)


def block_io(section: Mapping[str, Any]) -> Settings:
    """Weights and io.max; `leafWeight` has no meaning on v2."""
    if section.get("weight"):
        yield Setting("io", "io.weight", f"default {blkio_to_io_weight(section['weight'])}", "blockIO.weight")
    for device in section.get("weightDevice") or ():
        value = f"{device['major']}:{device['minor']} {blkio_to_io_weight(device['weight'])}"
        yield Setting("io", "io.weight", value, "blockIO.weightDevice")
    for field, key in THROTTLES:
        for device in section.get(field) or ():
            value = f"{device['major']}:{device['minor']} {key}={device['rate'] or 'max'}"
            yield Setting("io", "io.max", value, f"blockIO.{field}")


def hugepages(section: list[Mapping[str, Any]]) -> Settings:
    """One limit for each page size, on what is used and on what is reserved (hugetlb.<size>.rsvd.max)."""
    for entry in section:
        size, value = entry["pageSize"], str(entry["limit"])
        yield Setting("hugetlb", f"hugetlb.{size}.max", value, "hugepageLimits", not entry["limit"])
        yield Setting("hugetlb", f"hugetlb.{size}.rsvd.max", value, "hugepageLimits", True)


def rdma(section: Mapping[str, Mapping[str, Any]]) -> Settings:
    """Handles and objects for each device; the same file on both versions."""
    for device, limits in section.items():
        words = [("hca_handle", limits.get("hcaHandles")), ("hca_object", limits.get("hcaObjects"))]
        value = " ".join(f"{word}={limit}" for word, limit in words if limit is not None)
        yield Setting("rdma", "rdma.max", f"{device} {value}", "rdma")


def unified(section: Mapping[str, str]) -> Settings:
    """Files of v2 by name (config-linux.md, "Unified"); a value of several lines is written line by line."""
    for file, value in section.items():
        if "/" in file or "." not in file:
            raise InvalidResources(f"unified: {file!r} is not the name of a cgroup v2 file")
        if file.startswith("cgroup.") and file not in CORE_LIMITS:
            raise InvalidResources(f"unified: {file} is no limit, but how a cgroup is managed")
        for line in value.splitlines():
            yield Setting(file.partition(".")[0], file, line, f"unified.{file}")
