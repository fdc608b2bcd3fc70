"""The first process of a container, from clone3 to execve.

    shim --clone3(CLONE_INTO_CGROUP | CLONE_NEWNS | CLONE_NEWPID ...)--> this, a copy of the shim in new namespaces
         join the v1 cgroups, leave for a cgroup namespace rooted there
         build the filesystem tree, pivot_root            runtime.rootfs, runtime.operations
         user, capabilities, filter, execve               runtime.process

What goes wrong travels to the shim over `status` as the same exception (runtime.errors). The process is not dumpable
(the zygote saw to that), so until execve nobody in the container can look into it through /proc.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NoReturn

from runtime.errors import to_doc
from runtime.linux import syscalls
from runtime.linux.caps import CAP_SYS_RESOURCE, effective_mask
from runtime.linux.cgroups import Join
from runtime.linux.channel import Channel
from runtime.linux.failpoints import failpoint
from runtime.linux.paths import open_procfs, read_proc, write_proc
from runtime.operations import Operation, Tree, perform
from runtime.process import ProcessPlan, become
from runtime.protections import Pivot
from runtime.streams import become_stdio, become_terminal, bind_console, hand_over, open_terminal

FAILED: Final = 127


@dataclass(slots=True)
class InitPlan:
    """All that the first process needs, prepared in the shim."""

    staging: str
    plan_mounts: Callable[[], list[Operation]]
    process: ProcessPlan
    join: Join
    streams: tuple[int, int, int]
    oom_score_adj: int | None


def run_child(body: Callable[[Channel], None], status: Channel) -> NoReturn:
    """Run `body`, which ends in execve, in a process that was just cloned; report its failure and exit."""
    try:
        body(status)
    except BaseException as error:  # noqa: BLE001 - this process is a copy of the shim and must not return into it
        with contextlib.suppress(OSError):
            status.send({"error": to_doc(error)})
    finally:
        os._exit(FAILED)


def run_init(plan: InitPlan, status: Channel) -> None:
    """The body of a container's first process."""
    os.setsid()
    os.umask(0)  # modes of directories and devices are meant as they are written
    plan.join.enter()
    syscalls.unshare(syscalls.CLONE_NEWCGROUP)
    set_oom_score_adj(plan.oom_score_adj)
    steps = plan.plan_mounts()
    tree = Tree(plan.staging)
    failpoint("init.before_mounts")
    perform(steps[:-1], tree)
    if plan.process.terminal:
        master, slave = open_terminal(tree.root, plan.process.uid)
        bind_console(tree, slave)
        hand_over(status, master)
        become_terminal(slave)
    else:
        become_stdio(plan.streams, tree.root, plan.process.uid)
    assert isinstance(steps[-1], Pivot)
    perform(steps[-1:], tree)
    failpoint("init.before_execve")
    become(plan.process, status)


def set_oom_score_adj(wanted: int | None) -> None:
    """Write this process's oom_score_adj through the host's procfs (proc_pid_oom_score_adj(5)).

    Without CAP_SYS_RESOURCE a value below the daemon's own cannot be had; then it stays there, as with the peers'
    restrict_oom_score_adj: a container that is killed a little sooner is better than none.
    """
    if wanted is None:
        return
    proc = open_procfs()
    try:
        path = f"{os.readlink('self', dir_fd=proc)}/oom_score_adj"
        if not effective_mask() >> CAP_SYS_RESOURCE & 1:
            wanted = max(wanted, int(read_proc(proc, path)))
        write_proc(proc, path, str(wanted))
    except OSError as error:
        error.add_note(f"setting oom_score_adj to {wanted}")
        raise
    finally:
        os.close(proc)
