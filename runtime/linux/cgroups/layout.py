"""Where this host keeps its cgroup controllers, and below which directories this daemon may make cgroups.

    unified  cgroup v2 only           the tree stands at the root of the hierarchy, as the kubelet expects with
                                      the cgroupfs driver (/sys/fs/cgroup/kubepods), or, in a cgroup namespace
                                      of its own, below the cgroup that the daemon was started in
    hybrid   v1 controllers and v2    below the daemon's own cgroup in every hierarchy
    legacy   v1 only                  the same, without what only v2 can do

The daemon's own cgroups can differ from one start to the next, so whoever makes cgroups records the layout
(to_json) or the directories with them.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.linux.cgroups import files
from runtime.linux.cgroups.errors import CgroupError

#: Controllers whose v1 hierarchies a container joins; the others (freezer, net_cls, perf_event) have no limit to set.
V1_CONTROLLERS = ("cpu", "cpuacct", "cpuset", "memory", "pids", "devices", "blkio", "hugetlb")
V2_CONTROLLERS = frozenset({"cpu", "cpuset", "memory", "pids", "io", "hugetlb", "rdma", "misc"})

#: st_ino of /proc/self/ns/cgroup in the first cgroup namespace (include/linux/proc_ns.h).
PROC_CGROUP_INIT_INO = 0xEFFFFFFB


@dataclass(frozen=True, slots=True)
class Layout:
    """Directories below which a logical path like /kubepods/pod1 is made, and what is in force there."""

    #: controller -> directory in its v1 hierarchy
    v1: Mapping[str, str]
    #: directory on cgroup v2; "" on a legacy host
    v2: str
    #: controllers that can be enabled below `v2`
    v2_controllers: frozenset[str]

    @property
    def mode(self) -> str:
        """unified, hybrid or legacy."""
        if not self.v2:
            return "legacy"
        return "hybrid" if self.v1 else "unified"

    def version(self, controller: str) -> int:
        """Which cgroup version enforces this controller here: 1, 2, or 0 for neither."""
        if controller in self.v1:
            return 1
        # The device filter is an eBPF program, the core files are everywhere: neither is in cgroup.controllers.
        return 2 if self.v2 and (controller in self.v2_controllers or controller in ("devices", "cgroup")) else 0

    def directories(self) -> tuple[str, ...]:
        """Every base directory once (cpu and cpuacct may share a hierarchy), v2 last."""
        return (*dict.fromkeys(self.v1.values()), *([self.v2] if self.v2 else []))

    def to_json(self) -> dict[str, Any]:
        """The form for state files and messages."""
        return {"v1": dict(self.v1), "v2": self.v2, "v2_controllers": sorted(self.v2_controllers)}

    @classmethod
    def from_json(cls, doc: Mapping[str, Any]) -> Layout:
        """The inverse of to_json()."""
        return cls(dict(doc["v1"]), doc["v2"], frozenset(doc["v2_controllers"]))


@functools.cache
def detect() -> Layout:
    """The layout of this host as this process sees it; raises CgroupError when no cgroup file system is mounted."""
    return _layout(
        Path("/proc/self/mountinfo").read_text("utf-8", "surrogateescape").splitlines(),
        Path("/proc/self/cgroup").read_text("utf-8", "surrogateescape").splitlines(),
        os.stat("/proc/self/ns/cgroup").st_ino == PROC_CGROUP_INIT_INO,
    )


def _layout(mountinfo: Iterable[str], own: Iterable[str], first_namespace: bool) -> Layout:
    own_path = dict(_own_cgroups(own))
    v1: dict[str, str] = {}
    v2_mount = v2_own = ""
    for root, mount_point, fstype, options in _cgroup_mounts(mountinfo):
        if fstype == "cgroup2":
            v2_mount = v2_mount or mount_point
            v2_own = v2_own or _below(mount_point, root, own_path.get("", "/"))
            continue
        for controller in set(options) & set(V1_CONTROLLERS) & own_path.keys():
            v1.setdefault(controller, _below(mount_point, root, own_path[controller]))
    if not v1 and not v2_mount:
        raise CgroupError("no cgroup file system is mounted; mount cgroup2 at /sys/fs/cgroup")
    v2 = v2_mount if v2_mount and not v1 and first_namespace else v2_own
    return Layout({name: v1[name] for name in V1_CONTROLLERS if name in v1}, v2, _available(v2, v2_mount, bool(v1)))


def _cgroup_mounts(mountinfo: Iterable[str]) -> Iterable[tuple[str, str, str, list[str]]]:
    """(root, mount point, type, super options) of the cgroup mounts; proc_pid_mountinfo(5)."""
    for line in mountinfo:
        before, _, after = line.partition(" - ")
        fstype, _, options = after.split(" ", 2)
        if fstype in ("cgroup", "cgroup2"):
            _, _, _, root, mount_point, *_ = before.split(" ")
            yield root, mount_point, fstype, options.split(",")


def _own_cgroups(own: Iterable[str]) -> Iterable[tuple[str, str]]:
    """(controller, path) of this process, the v2 path under the name ""; cgroups(7)."""
    for line in own:
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            yield controller, path


def _below(mount_point: str, root: str, path: str) -> str:
    """The directory of cgroup `path` in a mount that shows the hierarchy from `root` down."""
    if root != "/" and (path == root or path.startswith(root + "/")):
        path = path[len(root) :]
    if path.startswith("/.."):  # outside of our cgroup namespace: the best that can be reached is its root
        path = "/"
    return (mount_point + path).rstrip("/")


def _available(v2: str, mount_point: str, hybrid: bool) -> frozenset[str]:
    """Controllers for children of `v2`.

    Beside v1 hierarchies only at the root: any other cgroup with processes in it, such as the daemon's own, cannot
    give controllers to its children (cgroup-v2.rst, "No Internal Process Constraint").
    """
    if not v2 or (hybrid and v2 != mount_point):
        return frozenset()
    return V2_CONTROLLERS & set(files.read(f"{v2}/cgroup.controllers").split())
