"""LinuxContainerResources in the OCI runtime spec's words (config-linux.md, "Control groups")."""

from __future__ import annotations

import functools
from typing import Any

from cri.proto import api_pb2 as api
from cri.server.errors import InvalidRequest
from runtime.linux.cgroups.settings_v2 import CORE_LIMITS
from runtime.linux.files import read_limited

_CPU = {
    "cpu_shares": "shares",
    "cpu_quota": "quota",
    "cpu_period": "period",
    "cpuset_cpus": "cpus",
    "cpuset_mems": "mems",
}


def oci_resources(asked: api.LinuxContainerResources) -> dict[str, Any]:
    """linux.resources without devices; what is zero or empty in the request is absent.

    Raises InvalidRequest for values that mean nothing anywhere. Whether this host can enforce the rest is found out by
    the cgroup code when it applies them.
    """
    resources: dict[str, Any] = {}
    if cpu := {ours: getattr(asked, theirs) for theirs, ours in _CPU.items() if getattr(asked, theirs)}:
        resources["cpu"] = cpu
    if memory := _memory(asked):
        resources["memory"] = memory
    if asked.hugepage_limits:
        limits = [{"pageSize": limit.page_size, "limit": limit.limit} for limit in asked.hugepage_limits]
        resources["hugepageLimits"] = limits
    if asked.unified:
        resources["unified"] = {_unified_key(key): value for key, value in asked.unified.items()}
    return resources


def _memory(asked: api.LinuxContainerResources) -> dict[str, int]:
    limit, swap = asked.memory_limit_in_bytes, asked.memory_swap_limit_in_bytes
    if limit < 0:
        raise InvalidRequest(f"memory_limit_in_bytes is {limit}; leave it 0 for no limit")
    if swap > 0 and limit > swap:
        raise InvalidRequest(
            f"memory_swap_limit_in_bytes {swap} is memory and swap together, so at least the {limit} of memory"
        )
    return {name: value for name, value in (("limit", limit), ("swap", swap)) if value}


def _unified_key(key: str) -> str:
    # The key becomes a file name in the cgroup's directory.
    if "/" in key or not key.isprintable() or "." not in key or key.startswith("."):
        raise InvalidRequest(f"unified key {key[:80]!r} is no cgroup v2 file name such as memory.high")
    if key.startswith("cgroup.") and key not in CORE_LIMITS:
        raise InvalidRequest(
            f"unified key {key[:80]!r} is no limit; of cgroup.* there are {', '.join(sorted(CORE_LIMITS))}"
        )
    return key


def merged(current: api.LinuxContainerResources, update: api.LinuxContainerResources) -> api.LinuxContainerResources:
    """The resources after an update: what the update leaves unset stays as it is."""
    result = api.LinuxContainerResources()
    result.CopyFrom(current)
    if update.hugepage_limits:
        del result.hugepage_limits[:]
    result.MergeFrom(update)
    return result


@functools.cache
def _own_oom_score() -> tuple[int, bool]:
    """This daemon's oom_score_adj, and whether it may give children a lower one."""
    mine = int(read_limited("/proc/self/oom_score_adj", 32))
    status = read_limited("/proc/self/status", 1 << 16).decode("ascii", "replace")
    line = next(line for line in status.splitlines() if line.startswith("CapEff:"))
    return mine, bool(int(line.split()[1], 16) >> 24 & 1)  # CAP_SYS_RESOURCE


def oom_score_adj(asked: int) -> int:
    """The value that the kernel will let us write: without CAP_SYS_RESOURCE one can only raise it (proc(5)).

    Raises InvalidRequest outside -1000..1000.
    """
    if not -1000 <= asked <= 1000:
        raise InvalidRequest(f"oom_score_adj {asked} is outside -1000..1000")
    mine, may_lower = _own_oom_score()
    return asked if may_lower else max(asked, mine)
