"""One more process in a running container, from clone3 to execve.

The shim clones it straight into the container's PID namespace and cgroup (`shim.home`), so one fork is enough and the
exit status comes to the shim itself. The rest it enters here, through the pidfd of the container's first process,
which can not come to mean another one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from runtime.init import set_oom_score_adj
from runtime.linux import syscalls
from runtime.linux.caps import bounding_mask
from runtime.linux.cgroups import Cgroup
from runtime.linux.failpoints import failpoint
from runtime.process import become, prepare
from runtime.spec import ContainerSpec, ExecSpec
from runtime.status import Status
from runtime.streams import become_stdio, become_terminal, open_terminal

# The shim lives in the pod's other namespaces already.
ENTERED: Final = syscalls.CLONE_NEWNS | syscalls.CLONE_NEWCGROUP


@dataclass(slots=True)
class ExecPlan:
    """What the shim hands over: the pidfd of the container's first process, two specs as JSON, cgroup, and fds."""

    container: int
    container_spec: bytes
    spec: bytes
    cgroup: Cgroup
    streams: tuple[int, int, int]


def run_exec(plan: ExecPlan, status: Status) -> None:
    """The body of the process: namespaces, streams, then as any process of a container."""
    spec = ExecSpec.from_json(json.loads(plan.spec))
    container = ContainerSpec.from_json(json.loads(plan.container_spec))
    own = container.oci["process"]
    seccomp = container.seccomp_filter if spec.seccomp_filter is None else spec.seccomp_filter
    process = prepare(_document(spec, own), container.id, seccomp, bounding_mask(), terminal=spec.tty)
    os.setsid()
    plan.cgroup.prepare_join().enter()
    set_oom_score_adj(own.get("oomScoreAdj"))
    syscalls.setns(plan.container, ENTERED)  # also makes the container's root this process's root
    failpoint("exec.before_execve")
    root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    if process.terminal:
        master, slave = open_terminal(root, process.uid)
        status.terminal(master)
        become_terminal(slave)
    else:
        become_stdio(plan.streams, root, process.uid)
    become(process, status)


def _document(spec: ExecSpec, own: Mapping[str, Any]) -> dict[str, Any]:
    """An OCI process: the container's own, with what the spec says instead."""
    given = {
        "args": spec.args,
        "env": spec.env,
        "cwd": spec.cwd,
        "user": spec.user,
        "capabilities": spec.capabilities,
        "noNewPrivileges": spec.no_new_privileges,
    }
    return dict(own) | {key: value for key, value in given.items() if value is not None}
