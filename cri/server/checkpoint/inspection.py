"""What came out of a checkpoint, asked of the kernel while CRIU still holds all of it: then it runs, or it dies.

The archive decides what is in the processes; who they are and what they can reach is the request's alone. So every
mount must be one that was staged for the request, the namespaces the pod's, each thread no more than a start would
have made it (privileges.py), and everything that is open of these mounts (holdings.py).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence

from cri.server.checkpoint.holdings import inspect_holdings
from cri.server.checkpoint.privileges import Bounds, inspect_threads
from cri.server.errors import InvalidRequest
from runtime.linux.mounttable import Mount, mounts
from runtime.spec import ContainerSpec

SHARED = ("net", "ipc", "uts", "user", "cgroup")
_GUARDS = frozenset({"ro", "nosuid", "nodev", "noexec"})


def namespaces_of(pid: int) -> dict[str, str]:
    """The namespaces that criu shares with what it restores."""
    return {kind: os.readlink(f"/proc/{pid}/ns/{kind}") for kind in SHARED}


def inspect(
    pid: int, pids: Iterable[int], staged: Mapping[str, Mount], spaces: Mapping[str, str], spec: ContainerSpec
) -> None:
    """Raises InvalidRequest for the first thing that is more than the request allows, OSError."""
    if namespaces_of(pid) != dict(spaces):
        raise InvalidRequest("the checkpoint makes namespaces of its own")
    found = mounts(f"/proc/{pid}/mountinfo")
    _inspect_mounts(found, staged)
    bounds = Bounds.of(spec)
    for each in pids:
        inspect_threads(each, bounds)
        inspect_holdings(each, found)


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
