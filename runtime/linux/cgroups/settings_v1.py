"""OCI `linux.resources` in the words of cgroup v1 (Documentation/admin-guide/cgroup-v1/).

A number of 0 means "not set" wherever v1 would take it for an error, as in the spec; -1 means "no limit".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from runtime.linux.cgroups.setting import Setting, Settings

#: (OCI field, file), written in this order
CPU = (
    ("idle", "cpu.idle"),
    ("shares", "cpu.shares"),
    ("period", "cpu.cfs_period_us"),
    ("quota", "cpu.cfs_quota_us"),
    ("burst", "cpu.cfs_burst_us"),
    ("realtimePeriod", "cpu.rt_period_us"),
    ("realtimeRuntime", "cpu.rt_runtime_us"),
)
MEMORY = (
    ("limit", "memory.limit_in_bytes"),
    ("swap", "memory.memsw.limit_in_bytes"),
    ("reservation", "memory.soft_limit_in_bytes"),
    ("kernelTCP", "memory.kmem.tcp.limit_in_bytes"),
)
THROTTLES = (
    ("throttleReadBpsDevice", "blkio.throttle.read_bps_device"),
    ("throttleWriteBpsDevice", "blkio.throttle.write_bps_device"),
    ("throttleReadIOPSDevice", "blkio.throttle.read_iops_device"),
    ("throttleWriteIOPSDevice", "blkio.throttle.write_iops_device"),
)


def cpu(section: Mapping[str, Any]) -> Settings:
    """cpu.shares, CFS bandwidth, burst, idle and realtime."""
    for field, file in CPU:
        if section.get(field):
            yield Setting("cpu", file, str(section[field]), f"cpu.{field}")
        elif field == "realtimeRuntime" and section.get(field) == 0:  # no time at all, as every new group has it
            yield Setting("cpu", file, "0", f"cpu.{field}", True)


def cpuset(section: Mapping[str, Any]) -> Settings:
    """cpus and mems; the same two files on both versions."""
    for field in ("cpus", "mems"):
        if section.get(field):
            yield Setting("cpuset", f"cpuset.{field}", str(section[field]), f"cpu.{field}")


def memory(section: Mapping[str, Any]) -> Settings:
    """Limits, swappiness and the OOM killer's switch; `kernel` is deprecated and ignored, as the spec allows."""
    for field, file in MEMORY:
        if section.get(field):
            # Without swap accounting there is no memsw file, and nothing to be unlimited or forbidden with it.
            free = field == "swap" and (section[field] < 0 or section[field] == section.get("limit"))
            yield Setting("memory", file, str(section[field]), f"memory.{field}", free)
    if section.get("swappiness") is not None:
        yield Setting("memory", "memory.swappiness", str(section["swappiness"]), "memory.swappiness")
    if (disabled := section.get("disableOOMKiller")) is not None:
        yield Setting("memory", "memory.oom_control", str(int(disabled)), "memory.disableOOMKiller", not disabled)


def pids(section: Mapping[str, Any]) -> Settings:
    """pids.max, the same on both versions; 0 is a limit (runtime-spec 1.3)."""
    limit = section.get("limit")
    if limit is not None:
        yield Setting("pids", "pids.max", "max" if limit < 0 else str(limit), "pids.limit")


def block_io(section: Mapping[str, Any]) -> Settings:
    """Weights and throttles."""
    if section.get("weight"):
        yield Setting("blkio", "blkio.bfq.weight", str(section["weight"]), "blockIO.weight")
    for device in section.get("weightDevice") or ():
        value = f"{device['major']}:{device['minor']} {device.get('weight', 0)}"
        yield Setting("blkio", "blkio.bfq.weight_device", value, "blockIO.weightDevice")
    for field, file in THROTTLES:
        for device in section.get(field) or ():
            yield Setting("blkio", file, f"{device['major']}:{device['minor']} {device['rate']}", f"blockIO.{field}")


def hugepages(section: list[Mapping[str, Any]]) -> Settings:
    """One limit for each page size."""
    for entry in section:
        file = f"hugetlb.{entry['pageSize']}.limit_in_bytes"
        # The kubelet sends 0 for every page size; a host without the controller is taken as it is, as peers do.
        yield Setting("hugetlb", file, str(entry["limit"]), "hugepageLimits", not entry["limit"])


def network(section: Mapping[str, Any]) -> Settings:
    """Packet classes: hierarchies that containers of ours do not join."""
    if section.get("classID"):
        yield Setting("net_cls", "net_cls.classid", str(section["classID"]), "network.classID")
    for priority in section.get("priorities") or ():
        value = f"{priority['name']} {priority['priority']}"
        yield Setting("net_prio", "net_prio.ifpriomap", value, "network.priorities")
