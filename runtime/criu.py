"""CRIU as a process: what a child of the shim does until it is `criu swrk`, to take a container down or to bring it up.

crid speaks with it over a socket (cri.server.checkpoint); the shim only bears it, so that what it restores has the
shim as its parent, the pod's namespaces around it and the container's cgroup over it.

    shim --fork--> criu swrk                                    a dump: outside the container's cgroup
    shim --clone3(CLONE_INTO_CGROUP | CLONE_NEWNS)--> the same tree as for a start, staged --> criu swrk
                                                 \\--clone3--> the container, sibling of criu and child of the shim

CRIU mounts nothing that was not staged here: every mount of the container is one of the request's, and CRIU binds it.
"""

from __future__ import annotations

import fcntl
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import prctl

from runtime import rootfs
from runtime.linux import mountapi, mounts, syscalls
from runtime.linux.cgroups import Cgroup
from runtime.linux.failpoints import failpoint
from runtime.linux.messages import parse
from runtime.linux.mountoptions import MountOptions
from runtime.linux.procs import pid_of
from runtime.linux.syscalls import close_range, execve, string_array
from runtime.processplan import ProcessPlan
from runtime.signals import reset_signals
from runtime.status import Status
from runtime.streams import bind_console, open_terminal
from runtime.tree import Tree, perform

#: In CRIU's own mount namespace: a place for its temporary directories, and for what it may mount.
STAGE: Final = "/tmp"
TREE: Final = f"{STAGE}/tree"
ROOT: Final = f"{STAGE}/root"
#: The fds that criu finds open: its socket, then the container's stdin, stdout and stderr, or the terminal first.
SOCKET_FD: Final = 3
STREAM_FDS: Final = (4, 5, 6)
PID_NAMESPACE_FD: Final = 7  # the pod's, where it shares one
_STATUS_FD: Final = 8
_PROGRAM_FD: Final = 9
_ABOVE: Final = 64
_ENVIRONMENT: Final = [b"PATH=/usr/sbin:/usr/bin:/sbin:/bin", b"LC_ALL=C"]
_PRIVATE: Final = MountOptions.parse(["nosuid", "nodev", "noexec", "mode=700", "size=1m"])


@dataclass(slots=True)
class RestorePlan:
    """What the shim hands over. `staging` is a directory of its own; `document` is JSON made by `runtime.preparation`;
    `streams` are fds or -1.
    """

    staging: str
    document: bytes
    cgroup: Cgroup
    socket: int
    streams: tuple[int, int, int]
    init: int  # pidfd of the first process of a shared PID namespace, or -1


def run_dump(program: str, socket: int, status: Status) -> None:
    """The body of a process that becomes criu and takes requests on `socket`; only returns by raising."""
    os.setsid()
    _become_criu(_opened(program), socket, (), status)


def run_restore(plan: RestorePlan, status: Status) -> None:
    """The same in the container's cgroup and a mount namespace in which its mounts are staged."""
    document = parse(plan.document)
    program = _opened(document["criu"])
    namespace = _pid_namespace(plan.init) if plan.init >= 0 else -1
    os.setsid()
    os.umask(0)
    plan.cgroup.prepare_join().enter()
    syscalls.unshare(syscalls.CLONE_NEWCGROUP)
    tree = Tree(plan.staging)
    failpoint("restore.before_mounts")
    perform(rootfs.plan(document["tree"], plan.cgroup), tree)
    streams = plan.streams
    process = ProcessPlan._make(document["process"])
    if process.terminal:
        master, slave = open_terminal(tree.root, process.uid)
        bind_console(tree, slave)
        status.terminal(master)
        streams = (slave, -1, -1)
    _stage(tree)
    failpoint("restore.before_criu")
    _become_criu(program, plan.socket, (*streams, namespace), status)


def _opened(program: str) -> int:
    """Opened while its path means what the configuration means; no close-on-exec, for the sake of `#!` programs."""
    fd = os.open(program, os.O_RDONLY)
    moved = fcntl.fcntl(fd, fcntl.F_DUPFD, _ABOVE)
    os.close(fd)
    return moved


def _pid_namespace(pidfd: int) -> int:
    return os.open(f"/proc/{pid_of(pidfd)}/ns/pid", os.O_RDONLY | os.O_CLOEXEC)


def _stage(tree: Tree) -> None:
    """Move the tree to where CRIU looks for mounts, and show its root alone where CRIU looks for that."""
    cover = mounts.filesystem("tmpfs", "criu", _PRIVATE.data, _PRIVATE.set_)
    mountapi.move_mount_at(cover, STAGE)
    os.close(cover)
    for path in (TREE, ROOT):
        os.mkdir(path, 0o700)
    alone = mounts.bind_fd(tree.root)
    mountapi.mount_setattr(alone, propagation=syscalls.MS_PRIVATE)
    mountapi.move_mount_at(tree.root, TREE)
    mountapi.move_mount_at(alone, ROOT)


def _become_criu(program: int, socket: int, rest: Sequence[int], status: Status) -> None:
    null = os.open("/dev/null", os.O_RDWR)
    wanted = [null, null, null, socket, *(fd if fd >= 0 else null for fd in rest)]
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD, _ABOVE) for fd in wanted]
    status.move_to(fcntl.fcntl(null, fcntl.F_DUPFD, _ABOVE))  # a number that nothing else needs
    for number, fd in enumerate(high):
        os.dup2(fd, number)
    os.dup2(program, _PROGRAM_FD)
    status.move_to(_STATUS_FD)
    close_range(_PROGRAM_FD + 1)
    prctl.set_pdeathsig(signal.SIGKILL)
    reset_signals()
    argv = string_array([b"criu", b"swrk", b"%d" % SOCKET_FD])
    status.executing()
    execve(b"/proc/self/fd/%d" % _PROGRAM_FD, argv, string_array(_ENVIRONMENT))
