"""What a restored process may be at most: user and groups, capabilities, filter, label, share of the machine.

The archive says who its processes are, and CRIU, which is root, makes them so. Nothing of that may be more than a start
would have given, or than a process could have come to from there.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cri.server.errors import InvalidRequest
from runtime.linux import caps
from runtime.linux.caps import CapabilitySets, bounding_mask
from runtime.linux.files import read_limited
from runtime.linux.paths import open_procfs, read_proc, write_proc
from runtime.linux.rlimits import read_rlimits
from runtime.spec import ContainerSpec

STATUS_LIMIT = 64 * 1024
_NORMAL = frozenset({os.SCHED_OTHER, os.SCHED_BATCH, os.SCHED_IDLE})


@dataclass(frozen=True, slots=True)
class Bounds:
    """Of one container; `permitted` is what its program starts with, `bounding` what its processes can ever have."""

    uid: int
    groups: frozenset[int]
    permitted: int
    bounding: int
    no_new_privs: bool
    filtered: bool
    label: str
    oom_score_adj: int | None
    limits: Mapping[str, int]

    @classmethod
    def of(cls, spec: ContainerSpec) -> Bounds:
        process: Mapping[str, Any] = spec.oci["process"]
        user = process.get("user") or {}
        sets = CapabilitySets.from_oci(process.get("capabilities") or {}, bounding_mask())
        uid = int(user.get("uid", 0))
        return cls(
            uid=uid,
            groups=frozenset([int(user.get("gid", 0)), *user.get("additionalGids", ())]),
            permitted=sets.ambient if uid else sets.permitted,  # execve(2) leaves others than root no more
            bounding=sets.bounding | sets.permitted,
            no_new_privs=bool(process.get("noNewPrivileges")),
            filtered=bool(spec.seccomp_filter),
            label=process.get("selinuxLabel") or process.get("apparmorProfile") or "",
            oom_score_adj=process.get("oomScoreAdj"),
            limits={each["type"]: each["hard"] for each in process.get("rlimits") or ()},
        )

    def can(self, capability: str) -> bool:
        """Whether its processes start with a capability."""
        return bool(self.permitted >> caps.number(capability) & 1)

    @property
    def almighty(self) -> bool:
        """Whether its processes may open whatever there is in the container, as CRIU does."""
        return self.can("CAP_DAC_OVERRIDE")

    def may(self, found: os.stat_result, wanted: int) -> bool:
        """Whether its user may open a file so (R_OK, W_OK), by mode; access lists do not count here."""
        if self.almighty or stat.S_ISLNK(found.st_mode):
            return True
        shift = 6 if found.st_uid == self.uid else 3 if found.st_gid in self.groups else 0
        return not wanted & ~(found.st_mode >> shift)


def inspect_threads(pid: int, bounds: Bounds) -> None:
    """Raises InvalidRequest for the first thing that is too much, OSError."""
    for name in os.listdir(f"/proc/{pid}/task"):
        status = _status(f"/proc/{pid}/task/{name}/status")
        _inspect_identity(status, bounds)
        _inspect_capabilities(status, bounds)
        _inspect_scheduling(int(name), bounds)
        if bounds.label and bounds.label not in _label(f"/proc/{pid}/task/{name}/attr/current"):
            raise InvalidRequest(f"the checkpoint's processes are not confined by {bounds.label!r}")
    _inspect_limits(pid, bounds)
    _be_no_less_likely_to_be_killed(pid, bounds)


def _status(path: str) -> dict[str, str]:
    lines = read_limited(path, STATUS_LIMIT).decode().splitlines()
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


def _inspect_identity(status: Mapping[str, str], bounds: Bounds) -> None:
    if not bounds.can("CAP_SETUID") and _ids(status["Uid"]) != {bounds.uid}:
        raise InvalidRequest(f"the checkpoint's processes are of another user than {bounds.uid}")
    more = (_ids(status["Gid"]) | _ids(status["Groups"])) - bounds.groups
    if not bounds.can("CAP_SETGID") and more:
        raise InvalidRequest(f"the checkpoint's processes are in groups that the container's are not: {sorted(more)}")


def _ids(text: str) -> set[int]:
    return set(map(int, text.split()))


def _inspect_capabilities(status: Mapping[str, str], bounds: Bounds) -> None:
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        if more := int(status[name], 16) & ~bounds.bounding:
            raise InvalidRequest(f"the checkpoint's processes have capabilities beyond the container's: {more:#x}")
    if bounds.no_new_privs and status["NoNewPrivs"] != "1":
        raise InvalidRequest("the checkpoint's processes may gain privileges, which the container may not")
    if bounds.filtered and status["Seccomp"] != "2":
        raise InvalidRequest("the checkpoint's processes have no seccomp filter, which the container has")


def _inspect_scheduling(thread: int, bounds: Bounds) -> None:
    if bounds.can("CAP_SYS_NICE"):
        return
    usual = os.getpriority(os.PRIO_PROCESS, 0)
    if os.sched_getscheduler(thread) not in _NORMAL or os.getpriority(os.PRIO_PROCESS, thread) < min(usual, 0):
        raise InvalidRequest(
            "the checkpoint's processes come before others on the processor, which the container's may not"
        )


def _label(path: str) -> str:
    try:
        return read_limited(path, STATUS_LIMIT).decode(errors="replace")
    except OSError:  # EINVAL: no module has anything to say
        return ""


def _inspect_limits(pid: int, bounds: Bounds) -> None:
    """Hard limits can only be lowered without CAP_SYS_RESOURCE (getrlimit(2)), and a start's are this daemon's."""
    if bounds.can("CAP_SYS_RESOURCE"):
        return
    most = {name: limit.hard for name, limit in read_rlimits("self").items()} | dict(bounds.limits)
    for name, limit in read_rlimits(pid).items():
        if limit.hard > most.get(name, limit.hard):
            raise InvalidRequest(f"the checkpoint's processes have a limit beyond the container's: {name} {limit.hard}")


def _be_no_less_likely_to_be_killed(pid: int, bounds: Bounds) -> None:
    """How likely a process is killed for memory is the request's; CRIU leaves it as it was, or as its own."""
    if bounds.oom_score_adj is None:
        return
    proc = open_procfs()
    try:
        path = f"{pid}/oom_score_adj"
        if int(read_proc(proc, path)) < bounds.oom_score_adj:
            write_proc(proc, path, str(bounds.oom_score_adj))
    finally:
        os.close(proc)
