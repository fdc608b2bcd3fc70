"""The first process of a pod's shared PID namespace: it reaps, and that is all it can do.

Processes of the containers can see it as pid 1, and one with CAP_SYS_PTRACE could even enter it. So it keeps nothing
worth entering: no capability, no file of the host's, an empty read-only root, nobody's uid.
"""

from __future__ import annotations

import os
import signal
from typing import Final

import prctl

from runtime.linux.caps import CapabilitySets, drop_bounding, every_mask, set_process_capabilities
from runtime.linux.cgroups import Cgroup
from runtime.linux.mountapi import move_mount_at
from runtime.linux.mountoptions import MountOptions
from runtime.linux.mounts import filesystem
from runtime.linux.syscalls import close_range
from runtime.mounting import Isolate
from runtime.protections import Pivot
from runtime.status import Status
from runtime.tree import Tree

NOBODY: Final = 65534
_EMPTY: Final = MountOptions.parse(["ro", "nosuid", "nodev", "noexec", "size=0", "nr_inodes=2", "mode=555"])


def run_pod_init(staging: str, cgroup: Cgroup, nobody: int, status: Status) -> None:
    """The body of the process, born in the pod's user namespace if it has one; never returns. `nobody` is its id."""
    os.setsid()
    cgroup.prepare_join().enter()
    prctl.set_name("pod-init")
    tree = Tree(staging)
    Isolate().execute(tree)
    tree.root = filesystem("tmpfs", "tmpfs", _EMPTY.data, _EMPTY.set_)
    move_mount_at(tree.root, staging)
    Pivot().execute(tree)
    drop_bounding(every_mask())
    os.setgroups([])
    os.setresgid(nobody, nobody, nobody)
    os.setresuid(nobody, nobody, nobody)
    set_process_capabilities(CapabilitySets(0, 0, 0, 0))
    prctl.set_no_new_privs(1)
    prctl.set_pdeathsig(signal.SIGKILL)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps for whoever ignores it (wait(2), NOTES)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    status.executing()
    close_range(0)
    while True:
        signal.pause()
