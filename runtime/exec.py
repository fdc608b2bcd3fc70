"""One more process in a running container, from clone3 to execve.

The shim clones it straight into the container's PID namespace and cgroup (`shim.home`), so one fork is enough and the
exit status comes to the shim itself. The rest it enters here, through the pidfd of the container's first process,
which can not come to mean another one.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Final

from runtime.arrival import prepare_arrival
from runtime.init import set_oom_score_adj
from runtime.linux import seccomp, syscalls
from runtime.linux.cgroups import Cgroup
from runtime.linux.failpoints import failpoint
from runtime.linux.lsm import label_next_program
from runtime.linux.messages import parse
from runtime.linux.pages import Pages
from runtime.process import become
from runtime.processplan import ProcessPlan
from runtime.status import Status
from runtime.streams import become_stdio, become_terminal, open_terminal

# The shim lives in the pod's other namespaces already.
ENTERED: Final = syscalls.CLONE_NEWNS | syscalls.CLONE_NEWCGROUP
#: What an exec writes to between clone and execve (`runtime.scouts`).
WRITTEN: Final = Pages()


@dataclass(slots=True)
class ExecPlan:
    """What the shim hands over: the pidfd of the container's first process, a ProcessPlan as JSON, cgroup, and fds.

    `userns` is an fd of the pod's user namespace, -1 when it has none.
    `late`: the process was born outside of the container's PID namespace and arrives there last (`runtime.arrival`).
    """

    container: int
    document: bytes
    cgroup: Cgroup
    streams: tuple[int, int, int]
    late: bool
    userns: int = -1


def run_exec(plan: ExecPlan, status: Status) -> None:
    """The body of the process: namespaces, streams, then as any process of a container."""
    WRITTEN.copy()
    process = ProcessPlan._make(parse(plan.document))
    program = seccomp.load(process.seccomp) if process.seccomp else b""
    if plan.late:
        prepare_arrival(plan.container)
    os.setsid()
    plan.cgroup.prepare_join().enter()
    set_oom_score_adj(process.oom_score_adj)
    label_next_program(process.apparmor, process.selinux)
    syscalls.setns(plan.container, ENTERED)  # also makes the container's root this process's root
    failpoint("exec.before_execve")
    root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    if process.terminal:
        master, slave = open_terminal(root, process.owner)
        status.terminal(master)
        become_terminal(slave, own=not plan.late)
    else:
        become_stdio(plan.streams, root, process.owner)
    if plan.userns >= 0:  # last: what was opened so far was opened with the node's power
        syscalls.setns(plan.userns, syscalls.CLONE_NEWUSER)
    become(process, program, status, late=plan.late)
