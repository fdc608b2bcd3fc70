"""LinuxContainerResources in the OCI runtime spec's words (config-linux.md, "Control groups")."""

from __future__ import annotations

import functools
import re
from typing import Any

from cri.proto import api_pb2 as api
from cri.server.errors import InvalidRequest
from runtime.linux.cgroups.settings_v2 import CORE_LIMITS
from runtime.linux.files import read_limited

_PAGE_SIZE = re.compile(r"[0-9]{1,9}[KMG]B")
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
    _check_cpu(asked)
    if cpu := {ours: getattr(asked, theirs) for theirs, ours in _CPU.items() if getattr(asked, theirs)}:
        resources["cpu"] = cpu
    if memory := _memory(asked):
        resources["memory"] = memory
    if asked.hugepage_limits:
        resources["hugepageLimits"] = [_huge_pages(limit) for limit in asked.hugepage_limits]
    if asked.unified:
        resources["unified"] = {_unified_key(key): value for key, value in asked.unified.items()}
    return resources


def _check_cpu(asked: api.LinuxContainerResources) -> None:
    # The kernel's own bounds (kernel/sched/core.c), which it tells as EINVAL.
    if asked.cpu_shares < 0:
        raise InvalidRequest(f"cpu_shares is {asked.cpu_shares}; leave it 0 for the default, or give 2 and more")
    if asked.cpu_quota < -1 or 0 < asked.cpu_quota < 1000:
        raise InvalidRequest(f"cpu_quota is {asked.cpu_quota} us; the least is 1000, and -1 lifts the limit")
    if asked.cpu_period and not 1000 <= asked.cpu_period <= 1_000_000:
        raise InvalidRequest(f"cpu_period {asked.cpu_period} us is outside 1000..1000000")


def _memory(asked: api.LinuxContainerResources) -> dict[str, int]:
    limit, swap = asked.memory_limit_in_bytes, asked.memory_swap_limit_in_bytes
    if limit < 0:
        raise InvalidRequest(f"memory_limit_in_bytes is {limit}; leave it 0 for no limit")
    if swap < -1:
        raise InvalidRequest(f"memory_swap_limit_in_bytes is {swap}; -1 lifts the limit, 0 leaves it to the runtime")
    if swap > 0 and limit > swap:
        raise InvalidRequest(
            f"memory_swap_limit_in_bytes {swap} is memory and swap together, so at least the {limit} of memory"
        )
    return {name: value for name, value in (("limit", limit), ("swap", swap)) if value}


def _huge_pages(asked: api.HugepageLimit) -> dict[str, Any]:
    # The size becomes part of a file name in the cgroup's directory.
    if not _PAGE_SIZE.fullmatch(asked.page_size):
        raise InvalidRequest(f"hugepage_limits: page_size {asked.page_size[:80]!r} is no size such as 2MB")
    return {"pageSize": asked.page_size, "limit": asked.limit}


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
    renewed = {limit.page_size for limit in update.hugepage_limits}
    del result.hugepage_limits[:]
    result.hugepage_limits.extend(limit for limit in current.hugepage_limits if limit.page_size not in renewed)
    result.MergeFrom(update)
    without_swap = current.memory_swap_limit_in_bytes == current.memory_limit_in_bytes
    if without_swap and update.memory_limit_in_bytes and not update.memory_swap_limit_in_bytes:
        result.memory_swap_limit_in_bytes = current.memory_swap_limit_in_bytes and update.memory_limit_in_bytes
    return result


def with_overhead(pod: api.LinuxPodSandboxConfig) -> api.LinuxContainerResources:
    """What the pod's cgroup allows: its containers' resources together, and beside them the pod's own (KEP-688)."""
    total = api.LinuxContainerResources()
    total.CopyFrom(pod.resources)
    for field in ("cpu_shares", "cpu_quota", "memory_limit_in_bytes"):
        limit, more = getattr(pod.resources, field), getattr(pod.overhead, field)
        if limit > 0 and more > 0:
            setattr(total, field, limit + more)
    return total


def without_swap(resources: dict[str, Any]) -> dict[str, Any]:
    """The same document, where a memory limit that says nothing about swap allows none, as the peers have it.

    Raises InvalidRequest for a limit of both together where memory alone has none.
    """
    memory = resources.get("memory") or {}
    if memory.get("swap", 0) > 0 and not memory.get("limit"):
        raise InvalidRequest("memory_swap_limit_in_bytes is set without memory_limit_in_bytes; set both")
    told = "swap" in memory or "memory.swap.max" in resources.get("unified", {})  # a kubelet with LimitedSwap
    if memory.get("limit", 0) > 0 and not told:
        resources = {**resources, "memory": {**memory, "swap": memory["limit"]}}
    return resources


@functools.cache
def least_oom_score_adj() -> int:
    """The lowest oom_score_adj that this daemon can give: without CAP_SYS_RESOURCE its own (proc(5))."""
    status = read_limited("/proc/self/status", 1 << 16).decode("ascii", "replace")
    line = next(line for line in status.splitlines() if line.startswith("CapEff:"))
    may_lower = int(line.split()[1], 16) >> 24 & 1  # CAP_SYS_RESOURCE
    return -1000 if may_lower else int(read_limited("/proc/self/oom_score_adj", 32))


def oom_score_adj(asked: int) -> int:
    """The value that the kernel will let us write: without CAP_SYS_RESOURCE one can only raise it (proc(5)).

    Raises InvalidRequest outside -1000..1000.
    """
    if not -1000 <= asked <= 1000:
        raise InvalidRequest(f"oom_score_adj {asked} is outside -1000..1000")
    return max(asked, least_oom_score_adj())
