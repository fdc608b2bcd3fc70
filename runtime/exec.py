"""One more process in a running container, from clone3 to execve.

The shim clones it straight into the container's PID namespace and cgroup (`namespaces.children_in_pid_namespace`), so
one fork is enough and the exit status comes to the shim itself. The rest it enters here, through the pidfd of the
container's first process, which can not come to mean another one.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Final

from runtime.init import set_oom_score_adj
from runtime.linux import syscalls
from runtime.linux.cgroups import Join
from runtime.linux.channel import Channel
from runtime.linux.failpoints import failpoint
from runtime.process import ProcessPlan, become
from runtime.streams import become_stdio, become_terminal, hand_over, open_terminal

# The shim lives in the pod's other namespaces already.
ENTERED: Final = syscalls.CLONE_NEWNS | syscalls.CLONE_NEWCGROUP


@dataclass(slots=True)
class ExecPlan:
    """All that the process needs, prepared in the shim; `container` is the pidfd of the container's first process."""

    container: int
    process: ProcessPlan
    join: Join
    streams: tuple[int, int, int]
    oom_score_adj: int | None


def run_exec(plan: ExecPlan, status: Channel) -> None:
    """The body of the process: namespaces, streams, then as any process of a container."""
    os.setsid()
    plan.join.enter()
    set_oom_score_adj(plan.oom_score_adj)
    syscalls.setns(plan.container, ENTERED)  # also makes the container's root this process's root
    failpoint("exec.before_execve")
    root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    if plan.process.terminal:
        master, slave = open_terminal(root, plan.process.uid)
        hand_over(status, master)
        become_terminal(slave)
    else:
        become_stdio(plan.streams, root, plan.process.uid)
    become(plan.process, status)
