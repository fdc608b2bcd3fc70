"""The first process of a container, from clone3 to execve.

    shim --clone3(CLONE_INTO_CGROUP | CLONE_NEWNS | CLONE_NEWPID ...)--> this, a copy of the shim in new namespaces
         read the plan, which the shim has passed on unread
         join the v1 cgroups, leave for a cgroup namespace rooted there
         build the filesystem tree, pivot_root            runtime.rootfs, runtime.tree
         enter the pod's user namespace, if it has one    enter_user_namespace
         user, capabilities, filter, execve               runtime.process

What goes wrong travels to crid as the same exception (runtime.status, runtime.errors). The process is not dumpable
(the zygote saw to that), so until execve nobody in the container can look into it through /proc.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from runtime import rootfs
from runtime.linux import seccomp, syscalls
from runtime.linux.cgroups import Cgroup
from runtime.linux.failpoints import failpoint
from runtime.linux.lsm import label_next_program
from runtime.linux.messages import parse
from runtime.linux.pages import Pages
from runtime.linux.paths import open_procfs, write_proc
from runtime.linux.scheduling import apply_scheduling
from runtime.process import become
from runtime.processplan import ProcessPlan
from runtime.protections import Pivot
from runtime.separation import separate
from runtime.status import Status
from runtime.streams import become_stdio, become_terminal, bind_console, open_terminal
from runtime.tree import Tree, perform

#: What a first process writes to between clone and execve (`runtime.scouts`).
WRITTEN: Final = Pages()


@dataclass(slots=True)
class InitPlan:
    """What the shim hands over. `document` is JSON made by `runtime.preparation`; `streams` become 0, 1 and 2.

    `userns` is an fd of the pod's user namespace, -1 when it has none.
    """

    staging: str
    document: bytes
    cgroup: Cgroup
    streams: tuple[int, int, int]
    userns: int = -1


def run_init(plan: InitPlan, status: Status) -> None:
    """The body of a container's first process."""
    WRITTEN.copy()
    document = parse(plan.document)
    process = ProcessPlan._make(document["process"])
    program = seccomp.load(process.seccomp) if process.seccomp else b""
    os.setsid()
    join(plan.cgroup, process)
    label_next_program(process.apparmor, process.selinux)
    move_in(plan, document["tree"], process, status)
    if plan.userns >= 0:
        enter_user_namespace(plan.userns)
    failpoint("init.before_execve")
    become(process, program, status)


def join(cgroup: Cgroup, process: ProcessPlan) -> None:
    """Be in the container's cgroups, as likely to be killed for memory and as often run as it shall be."""
    cgroup.prepare_join().enter()
    set_oom_score_adj(process.oom_score_adj)
    apply_scheduling(process.scheduling)


def move_in(
    plan: InitPlan, tree_doc: Mapping[str, Any], process: ProcessPlan, status: Status, *, leads: bool = True
) -> None:
    """Build the filesystem tree, open the streams, and make the tree this process's root.

    `leads`: this process leads the session whose terminal it opens.
    """
    os.umask(0)  # modes of directories and devices are meant as they are written
    syscalls.unshare(syscalls.CLONE_NEWCGROUP)
    separate(tree_doc["separation"])
    steps = rootfs.plan(tree_doc, plan.cgroup)
    tree = Tree(plan.staging, userns=plan.userns)
    failpoint("init.before_mounts")
    perform(steps, tree)
    _open_streams(plan, process, tree, status, leads)
    perform([Pivot()], tree)


def enter_user_namespace(userns: int) -> None:
    """Give all power over the node away; mounts and cgroups are from now on seen through namespaces of the pod's own.

    The mounts are locked by that: what covers a path cannot be taken off it, by no capability in there
    (mount_namespaces(7)).
    """
    syscalls.setns(userns, syscalls.CLONE_NEWUSER)
    syscalls.unshare(syscalls.CLONE_NEWNS | syscalls.CLONE_NEWCGROUP)


def _open_streams(plan: InitPlan, process: ProcessPlan, tree: Tree, status: Status, leads: bool) -> None:
    """While the host's procfs is still there, and the root's devices too."""
    if not process.terminal:
        become_stdio(plan.streams, tree.root, process.owner)
        return
    master, slave = open_terminal(tree.root, process.owner)
    bind_console(tree, slave)
    status.terminal(master)
    become_terminal(slave, own=leads)


def set_oom_score_adj(wanted: int | None) -> None:
    """Write this process's oom_score_adj through the host's procfs (proc_pid_oom_score_adj(5)).

    A value below the lowest so far is refused without CAP_SYS_RESOURCE; then the daemon's own stays, as with the peers'
    restrict_oom_score_adj: a container that is killed a little sooner is better than none.
    """
    if wanted is None:
        return
    proc = open_procfs()
    try:
        write_proc(proc, f"{os.readlink('self', dir_fd=proc)}/oom_score_adj", str(wanted))
    except PermissionError:
        return
    except OSError as error:
        error.add_note(f"setting oom_score_adj to {wanted}")
        raise
    finally:
        os.close(proc)
