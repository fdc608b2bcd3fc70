"""Control groups: one logical path, whatever mix of cgroup v1 hierarchies and cgroup v2 this host has.

cgroup v2 is the design; on a hybrid host, whose controllers are bound to v1 hierarchies, limits and usage go
through those, and what only v2 can do (kill, freeze, CLONE_INTO_CGROUP, pressure) stays on the v2 tree.

    layout.py    which controller is where, and below which directory this daemon may work
    cgroup.py    Cgroup: create, apply, join, kill, freeze, remove, OOM kills; join.py the child's part
    tree.py      the directories themselves; files.py the files in them; errors.py what they refuse
    resources.py OCI `linux.resources` -> setting.py values, by settings_v1.py and settings_v2.py, numbers by convert.py
    devices.py   device rules -> one policy; bpf.py puts it into the kernel on v2
    usage.py     what a cgroup uses now; counters.py what it has used: both typed by stats.py, and read by
                 stats_v1.py (cgroupspy) and stats_v2.py

Shims import this package and fork afterwards, so it imports the standard library only and nothing that reads usage:
daemons import those modules by their names.
"""

from runtime.linux.cgroups.cgroup import Cgroup
from runtime.linux.cgroups.errors import CgroupError, InvalidResources, MissingController
from runtime.linux.cgroups.join import Join
from runtime.linux.cgroups.layout import Layout, detect
from runtime.linux.cgroups.tree import remove_directories

__all__ = [
    "Cgroup",
    "CgroupError",
    "InvalidResources",
    "Join",
    "Layout",
    "MissingController",
    "detect",
    "remove_directories",
]
