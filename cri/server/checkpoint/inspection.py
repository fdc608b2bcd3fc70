"""What came out of a checkpoint, asked of the kernel while CRIU still holds all of it: then it runs, or it dies.

The archive decides what is in the processes; who they are and what they can reach is the request's alone. So every
mount must be one that was staged for the request, the namespaces the pod's, and each thread's ids, capabilities,
no_new_privs and filter no more than a start would have given.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from cri.server.errors import InvalidRequest
from runtime.linux.caps import CapabilitySets, bounding_mask
from runtime.linux.files import read_limited
from runtime.linux.mounttable import Mount, mounts
from runtime.spec import ContainerSpec

STATUS_LIMIT = 64 * 1024
SHARED = ("net", "ipc", "uts", "user", "cgroup")
_GUARDS = frozenset({"ro", "nosuid", "nodev", "noexec"})


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a restored container may be at most."""

    uid: int
    bounding: int
    no_new_privs: bool
    filtered: bool

    @classmethod
    def of(cls, spec: ContainerSpec) -> Bounds:
        process = spec.oci["process"]
        sets = CapabilitySets.from_oci(process.get("capabilities") or {}, bounding_mask())
        return cls(
            int((process.get("user") or {}).get("uid", 0)),
            sets.bounding | sets.permitted,
            bool(process.get("noNewPrivileges")),
            bool(spec.seccomp_filter),
        )


def namespaces_of(pid: int) -> dict[str, str]:
    """The namespaces that criu shares with what it restores."""
    return {kind: os.readlink(f"/proc/{pid}/ns/{kind}") for kind in SHARED}


def inspect(
    pid: int, pids: Iterable[int], staged: Mapping[str, Mount], spaces: Mapping[str, str], spec: ContainerSpec
) -> None:
    """Raises InvalidRequest for the first thing that is more than the request allows, OSError."""
    if namespaces_of(pid) != dict(spaces):
        raise InvalidRequest("the checkpoint makes namespaces of its own")
    _inspect_mounts(mounts(f"/proc/{pid}/mountinfo"), staged)
    bounds = Bounds.of(spec)
    for each in pids:
        for thread in os.listdir(f"/proc/{each}/task"):
            _inspect_thread(f"/proc/{each}/task/{thread}/status", bounds)


def _inspect_mounts(found: Sequence[Mount], staged: Mapping[str, Mount]) -> None:
    proc = {mount.device for mount in found if mount.point == "/proc" and mount.fstype == "proc"}
    for mount in found:
        planned = staged.get(mount.point)
        if planned is None:
            raise InvalidRequest(f"the checkpoint mounts something at {mount.point[:200]!r}")
        same = (mount.device, mount.root) == (planned.device, planned.root)
        if not same and not (planned.fstype == "proc" and mount.device in proc and mount.root == planned.root):
            raise InvalidRequest(f"the checkpoint mounts something else at {mount.point[:200]!r}")
        if missing := (_GUARDS & set(planned.options)) - set(mount.options):
            raise InvalidRequest(f"the checkpoint mounts {mount.point[:200]!r} without {', '.join(sorted(missing))}")


def _inspect_thread(path: str, bounds: Bounds) -> None:
    status = dict(
        line.split(":\t", 1) for line in read_limited(path, STATUS_LIMIT).decode().splitlines() if ":\t" in line
    )
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        if more := int(status[name], 16) & ~bounds.bounding:
            raise InvalidRequest(f"the checkpoint's processes have capabilities beyond the container's: {more:#x}")
    if bounds.uid and any(int(uid) != bounds.uid for uid in status["Uid"].split()):
        raise InvalidRequest(f"the checkpoint's processes are of another user than {bounds.uid}")
    if bounds.no_new_privs and status["NoNewPrivs"] != "1":
        raise InvalidRequest("the checkpoint's processes may gain privileges, which the container may not")
    if bounds.filtered and status["Seccomp"] != "2":
        raise InvalidRequest("the checkpoint's processes have no seccomp filter, which the container has")
