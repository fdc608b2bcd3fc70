"""The first process of a PID namespace that a user namespace owns, and the one that builds its filesystem tree for it.

A PID namespace belongs to the user namespace of the process that makes it, so its first process, the heir, has been
without power over the node from birth. What takes that power is done by a builder, which lives in the heir's PID
namespace (a procfs shows that of whoever mounts it), but not in its user namespace until all is done:

    shim --clone_inside(CLONE_NEWPID)--> heir       waits
    shim --clone3(CLONE_NEWNS)---------> builder    tree, streams, pivot_root; enters the user namespace
                                 heir <-- builder   its mount namespace and streams, or the error
                                 heir: user, capabilities, filter, execve

The builder cannot be looked into from the container: nobody else is in the PID namespace before the heir's execve.
When the heir dies, the kernel kills the builder with the namespace.
"""

from __future__ import annotations

import fcntl
import json
import os
import termios

from runtime.errors import ContainerError, from_doc
from runtime.init import InitPlan, enter_user_namespace, join, move_in
from runtime.linux import seccomp, syscalls
from runtime.linux.channel import Channel
from runtime.linux.failpoints import failpoint
from runtime.linux.lsm import label_next_program
from runtime.linux.messages import parse
from runtime.linux.paths import open_procfs
from runtime.process import become
from runtime.processplan import ProcessPlan
from runtime.status import FAILED, TERMINAL, Status


def before_birth(plan: InitPlan) -> None:
    """What the heir inherits from the one that bears it, because its own power does not suffice."""
    join(plan.cgroup, ProcessPlan._make(parse(plan.document)["process"]))


def run_builder(plan: InitPlan, heir: Status) -> None:
    """The body of the builder; `heir` is its channel to the heir."""
    document = parse(plan.document)
    process = ProcessPlan._make(document["process"])
    join(plan.cgroup, process)
    proc = open_procfs()  # the node's: what is mounted on the container's /proc may be anything
    move_in(plan, document["tree"], process, heir, leads=False)
    enter_user_namespace(plan.userns)
    mounts = os.open("self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC, dir_fd=proc)
    heir.hand_over([mounts, 0, 1, 2])
    os._exit(0)


def run_heir(plan: InitPlan, builder: Channel, status: Status) -> None:
    """The body of the heir."""
    process = ProcessPlan._make(parse(plan.document)["process"])
    program = seccomp.load(process.seccomp) if process.seccomp else b""
    os.setsid()
    label_next_program(process.apparmor, process.selinux)  # while the node's procfs is still there
    mounts, *streams = _await(builder, status)
    syscalls.setns(mounts, syscalls.CLONE_NEWNS)
    syscalls.unshare(syscalls.CLONE_NEWCGROUP)
    for target, fd in enumerate(streams):
        os.dup2(fd, target)
    if process.terminal:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    failpoint("init.before_execve")
    become(process, program, status)


def _await(builder: Channel, status: Status) -> list[int]:
    """The builder's work; raises its error."""
    while (received := builder.recv_payload()) is not None:
        said, fds = received
        if said == TERMINAL:
            status.terminal(fds[0])
        elif said[:1] == FAILED:
            raise from_doc(json.loads(said[1:]))
        else:
            return fds
    raise ContainerError("what builds the container's filesystem tree was killed: its memory limit may be too low")
