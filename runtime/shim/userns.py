"""Births in a pod that has a user namespace. They stand apart, so that no other pod's shim touches a page of this."""

from __future__ import annotations

import functools
import json
import os

from runtime import state
from runtime.errors import to_doc
from runtime.exec import ExecPlan, run_exec
from runtime.heir import before_birth, run_builder, run_heir
from runtime.init import InitPlan, run_init
from runtime.linux import syscalls
from runtime.linux.cgroups import Cgroup
from runtime.linux.channel import Channel
from runtime.linux.fds import Fd
from runtime.linux.userns import Maps, clone_inside
from runtime.podinit import NOBODY, run_pod_init
from runtime.shim.birth import Birth, run_child
from runtime.shim.home import Home
from runtime.status import FAILED, Status


def open_user_namespace(home: Home) -> Fd:
    """The pod's user namespace, by its pin."""
    path = f"{home.state_dir}/{state.NAMESPACES}/{state.USER}"
    return Fd(os.open(path, os.O_RDONLY | os.O_CLOEXEC))


def bear_container(home: Home, birth: Birth, plan: InitPlan, flags: int, cgroup: int, target: Fd | None) -> None:
    """Begin the birth of a container's first process. Raises OSError.

    In a PID namespace that is there already one process does it all, and changes namespaces when the tree is built.
    """
    with open_user_namespace(home) as users:
        plan.userns = users.fileno()
        if not flags & syscalls.CLONE_NEWPID and (target is not None or home.init is not None):
            home.bear(birth, functools.partial(run_init, plan), flags, cgroup, target)
        else:
            _bear_heir(home, birth, plan, cgroup)


def bear_exec(home: Home, birth: Birth, plan: ExecPlan, cgroup: int, container: Fd) -> None:
    """Begin the birth of one more process of a container, which is in its PID namespace from the start.

    Nobody in there can take hold of it before it has given its power away: CAP_SYS_PTRACE of a user namespace is
    none over a process that has a memory image from outside of it (ptrace(2)), so `plan.late` has no use here.
    """
    with open_user_namespace(home) as users:
        plan.userns, plan.late = users.fileno(), False
        home.bear(birth, functools.partial(run_exec, plan), 0, cgroup, container)


def _bear_heir(home: Home, birth: Birth, plan: InitPlan, cgroup: int) -> None:
    near, far = Channel.pair()
    try:
        clone = functools.partial(clone_inside, plan.userns, functools.partial(before_birth, plan))
        birth.begin(functools.partial(_heir, plan, near, far), syscalls.CLONE_NEWPID, cgroup, clone)
        near.close()
        _bear_builder(home, birth, plan, far, cgroup)
    finally:
        near.close()
        far.close()


def _heir(plan: InitPlan, near: Channel, far: Channel, status: Status) -> None:
    far.close()  # so that the builder's end is the end of file
    run_heir(plan, near, status)


def _bear_builder(home: Home, birth: Birth, plan: InitPlan, far: Channel, cgroup: int) -> None:
    """The heir lives, so what goes wrong from here on is told to it, and comes back as the outcome of its birth."""
    try:
        syscalls.setns(birth.pidfd.fileno(), syscalls.CLONE_NEWPID)
        try:
            pid, pidfd = syscalls.clone3(syscalls.CLONE_NEWNS, cgroup=cgroup)
            if not pid:
                run_child(functools.partial(run_builder, plan), Status(far))
        finally:
            home.return_home()
        os.close(pidfd)
    except OSError as error:
        far.send_payload(FAILED + json.dumps(to_doc(error)).encode())


def bear_pod_init(home: Home, birth: Birth, cgroup: Cgroup, cgroup_fd: int, maps: Maps) -> None:
    """Begin the birth of the first process of the PID namespace that the pod's containers share. Raises OSError."""
    highest = max(first + length - 1 for kind in ("uid", "gid") for first, _, length in maps[kind])
    body = functools.partial(run_pod_init, home.state_dir, cgroup, min(NOBODY, highest))
    with open_user_namespace(home) as users:
        # Opened by the helper, which ends: the shim would have the files for as long as the pod lives.
        clone = functools.partial(clone_inside, users.fileno(), lambda: cgroup.prepare_join().enter())
        birth.begin(body, syscalls.CLONE_NEWNS | syscalls.CLONE_NEWPID, cgroup_fd, clone)
