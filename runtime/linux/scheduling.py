"""How a process is scheduled and where its memory comes from: sched_setattr(2), ioprio_set(2), set_mempolicy(2).

All three survive execve, so a container's first process sets them on itself while it still may. The words for them are
those of an OCI config: `scheduler` and `ioPriority` of its process, `memoryPolicy` (runtime-spec 1.3); crid makes
numbers of them. glibc has no wrappers for the calls, and their numbers are older than those that all machines share.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Mapping, Sequence
from ctypes import c_int, c_uint, c_ulong, c_void_p
from typing import Any, Final

from runtime.linux.syscalls import numbered

_GENERIC: Final = (274, 30, 237)
#: sched_setattr, ioprio_set, set_mempolicy
_NUMBERS: Final = {"x86_64": (314, 251, 238), "aarch64": _GENERIC, "riscv64": _GENERIC}.get(os.uname().machine)

IOPRIO_WHO_PROCESS: Final = 1
IOPRIO_CLASS_SHIFT: Final = 13
# struct sched_attr, first version: size, policy, flags, nice, priority, runtime, deadline, period
_SCHED_ATTR: Final = struct.Struct("=IIQiIQQQ")

POLICIES: Final = {
    "SCHED_OTHER": 0,
    "SCHED_FIFO": 1,
    "SCHED_RR": 2,
    "SCHED_BATCH": 3,
    "SCHED_IDLE": 5,
    "SCHED_DEADLINE": 6,
}
FLAGS: Final = {
    "SCHED_FLAG_RESET_ON_FORK": 0x01,
    "SCHED_FLAG_RECLAIM": 0x02,
    "SCHED_FLAG_DL_OVERRUN": 0x04,
    "SCHED_FLAG_KEEP_POLICY": 0x08,
    "SCHED_FLAG_KEEP_PARAMS": 0x10,
}
IO_CLASSES: Final = {"IOPRIO_CLASS_RT": 1, "IOPRIO_CLASS_BE": 2, "IOPRIO_CLASS_IDLE": 3}
MODES: Final = {
    "MPOL_DEFAULT": 0,
    "MPOL_PREFERRED": 1,
    "MPOL_BIND": 2,
    "MPOL_INTERLEAVE": 3,
    "MPOL_LOCAL": 4,
    "MPOL_PREFERRED_MANY": 5,
    "MPOL_WEIGHTED_INTERLEAVE": 6,
}
MODE_FLAGS: Final = {"MPOL_F_STATIC_NODES": 1 << 15, "MPOL_F_RELATIVE_NODES": 1 << 14, "MPOL_F_NUMA_BALANCING": 1 << 13}
NODES_MAX: Final = 1024

_sched_setattr = numbered("sched_setattr", c_int, c_void_p, c_uint)
_ioprio_set = numbered("ioprio_set", c_int, c_int, c_int)
_set_mempolicy = numbered("set_mempolicy", c_int, c_void_p, c_ulong)


def _number(which: int) -> int:
    if _NUMBERS is None:
        raise OSError(f"scheduling attributes are not supported on {os.uname().machine}")
    return _NUMBERS[which]


def sched_setattr(policy: int, flags: int, nice: int, priority: int, runtime: int, deadline: int, period: int) -> None:
    """Set the scheduling policy of this thread; times in nanoseconds (sched_setattr(2))."""
    attributes = _SCHED_ATTR.pack(_SCHED_ATTR.size, policy, flags, nice, priority, runtime, deadline, period)
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    _sched_setattr(_number(0), 0, ctypes.addressof(buffer), 0)


def ioprio_set(io_class: int, level: int) -> None:
    """Set the I/O priority of this thread (ioprio_set(2))."""
    _ioprio_set(_number(1), IOPRIO_WHO_PROCESS, 0, io_class << IOPRIO_CLASS_SHIFT | level)


def set_mempolicy(mode: int, nodes: Sequence[int]) -> None:
    """Where this thread's memory is taken from: MPOL_* with MPOL_F_* flags, and NUMA nodes (set_mempolicy(2))."""
    bits = ctypes.sizeof(c_ulong) * 8
    words = (max(nodes, default=0) // bits) + 1
    mask = (c_ulong * words)()
    for node in nodes:
        mask[node // bits] |= 1 << node % bits
    # The kernel takes one bit less than it is told.
    _set_mempolicy(_number(2), mode, ctypes.addressof(mask) if nodes else None, words * bits + 1 if nodes else 0)


def plan_scheduling(oci: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Arguments of the calls to make, by name; empty for almost every container. Raises ValueError."""
    process, linux = oci["process"], oci.get("linux") or {}
    plan: dict[str, list[Any]] = {}
    if asked := process.get("scheduler"):
        plan["scheduler"] = scheduler_of(asked)
    if asked := process.get("ioPriority"):
        plan["io"] = [_known(asked["class"], IO_CLASSES, "ioPriority.class"), int(asked.get("priority") or 0)]
    if asked := linux.get("memoryPolicy"):
        plan["memory"] = memory_policy_of(asked)
    return plan


def scheduler_of(document: Mapping[str, Any]) -> list[int]:
    """Arguments of sched_setattr()."""
    flags = sum(_known(flag, FLAGS, "scheduler.flags") for flag in set(document.get("flags") or ()))
    values = [int(document.get(name) or 0) for name in ("nice", "priority", "runtime", "deadline", "period")]
    return [_known(document["policy"], POLICIES, "scheduler.policy"), flags, *values]


def memory_policy_of(document: Mapping[str, Any]) -> list[Any]:
    """Arguments of set_mempolicy()."""
    flags = sum(_known(flag, MODE_FLAGS, "memoryPolicy.flags") for flag in set(document.get("flags") or ()))
    return [_known(document["mode"], MODES, "memoryPolicy.mode") | flags, _nodes(document.get("nodes") or "")]


def _nodes(text: str) -> list[int]:
    """NUMA nodes such as 0-1,3 as numbers (cpuset(7), "List format")."""
    nodes: set[int] = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        if not (first.isdecimal() and (last or first).isdecimal()) or int(last or first) >= NODES_MAX:
            raise ValueError(f"memoryPolicy.nodes {text[:80]!r} is no list of NUMA nodes below {NODES_MAX}")
        nodes.update(range(int(first), int(last or first) + 1))
    return sorted(nodes)


def _known(word: str, table: Mapping[str, int], field: str) -> int:
    if word not in table:
        raise ValueError(f"{field} {word!r} is none of {', '.join(table)}")
    return table[word]


def apply_scheduling(plan: Mapping[str, Any]) -> None:
    """Set them on this process, which has its capabilities yet. Raises OSError."""
    calls = (("memory", set_mempolicy), ("io", ioprio_set), ("scheduler", sched_setattr))
    for name, call in calls:
        if name in plan:
            call(*plan[name])
