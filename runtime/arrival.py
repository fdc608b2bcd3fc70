"""How a process comes into a PID namespace where it may be watched: as the last thing before execve.

A process with CAP_SYS_PTRACE can take hold of any process that it sees, dumpable or not, and with it of that process's
capabilities, descriptors and mount namespace. A child that is born into such a namespace and becomes a container's
process only then is a way to the host: for two milliseconds it holds all that the shim holds (CVE-2016-9962 was this
without the capability). So where a container has CAP_SYS_PTRACE, the shim's child stays in the node's PID namespace:

    shim --clone3--> child  user, capabilities, descriptors, filter: all as for any process
                       \\--clone(CLONE_PARENT)--> what executes the program, the first that anybody inside can see
         <-- pidfd --   `Status.arrived`; the shim lets both go on once it knows whom to wait for
"""

from __future__ import annotations

import fcntl
import os
import signal
import termios

import prctl

from runtime.errors import ContainerError
from runtime.linux.procs import pid_of
from runtime.linux.syscalls import CLONE_NEWPID, clone_sibling, setns
from runtime.status import Status


def prepare_arrival(pidfd: int) -> None:
    """Choose the PID namespace to arrive in, that of a process, while the capability for it is still there."""
    setns(pidfd, CLONE_NEWPID)


def arrive(status: Status, *, terminal: bool) -> None:
    """Return in a new process, a child of the shim's in the chosen PID namespace; the calling one ends here.

    What a process does not inherit is made again: the session, the terminal of fd 0, the signal at the parent's death.
    """
    pid, pidfd = clone_sibling()
    if pid:
        status.arrived(pidfd)
        status.wait_for_go()
        os._exit(0)
    status.wait_for_go()
    os.setsid()
    if terminal:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    prctl.set_pdeathsig(signal.SIGKILL)


def arrived_child(pidfd: int) -> int:
    """The pid of what has arrived; raises ContainerError for anything but a child of the calling process.

    What comes over the status channel of a process that can be watched need not come from us.
    """
    try:
        os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        raise ContainerError("the process that arrived in the container is not one that was sent") from None
    try:
        return pid_of(pidfd)
    except ProcessLookupError:
        raise ContainerError("the process that arrived in the container is gone") from None
