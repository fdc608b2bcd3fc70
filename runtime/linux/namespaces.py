"""Namespaces of a pod: made, pinned, entered for one moment, and given their few settings.

Everything here is for a single-threaded process (the kernel's own condition for setns(2)); crid never calls it.
A namespace lives while a process, an fd or a bind mount refers to it. A pod's are pinned by bind mounts, so they have
a name for CNI plugins and need no pause process.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import socket
import struct
from collections.abc import Iterable
from typing import Final

from runtime.linux import mountapi, syscalls
from runtime.linux.mounts import bind
from runtime.linux.paths import open_procfs, write_proc

CLONE_FLAGS: Final[dict[str, int]] = {
    "net": syscalls.CLONE_NEWNET,
    "ipc": syscalls.CLONE_NEWIPC,
    "uts": syscalls.CLONE_NEWUTS,
    "pid": syscalls.CLONE_NEWPID,
    "cgroup": syscalls.CLONE_NEWCGROUP,
    "mnt": syscalls.CLONE_NEWNS,
    "user": syscalls.CLONE_NEWUSER,
}
SIOCGIFFLAGS: Final = 0x8913
SIOCSIFFLAGS: Final = 0x8914
IFF_UP: Final = 1
_IFREQ: Final = struct.Struct("16sH22x")

# Sysctls that belong to a namespace, so that a pod can have its own value: namespaces(7), sysctl(5).
_IPC_SYSCTLS: Final = ("kernel.shm", "kernel.msg", "kernel.sem", "fs.mqueue.")
_NOT_TAKEN: Final = frozenset({errno.EINVAL, errno.ERANGE, errno.ENOENT, errno.EACCES, errno.EPERM})
_SEPARATOR: Final = re.compile(r"[./]")
_SYSCTL_NAME: Final = re.compile(r"[a-z0-9_]+([./-][A-Za-z0-9_:@-]+)+")


def pin(kind: str, target: str, *, pid: int | str = "self") -> None:
    """Bind-mount a namespace of `pid` onto the new file `target`, so that it lives without any process."""
    os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_RDONLY | os.O_CLOEXEC, 0o600))
    mount_fd = bind(f"/proc/{pid}/ns/{kind}")
    try:
        mountapi.move_mount_at(mount_fd, target)
    finally:
        os.close(mount_fd)


def unpin(target: str) -> None:
    """Undo pin(); a namespace that is not pinned (any more) is fine."""
    with contextlib.suppress(FileNotFoundError):
        with contextlib.suppress(OSError):  # EINVAL: the file is there but nothing is mounted on it
            syscalls.umount2(target, syscalls.MNT_DETACH | syscalls.UMOUNT_NOFOLLOW)
        os.unlink(target)


def in_chroot() -> bool:
    """Whether this process has another root than its mount namespace; if so, it has that namespace's root afterwards.

    Entering a mount namespace, be it one's own, takes a process out of any chroot (setns(2)).
    """
    before = os.stat("/")
    own = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    try:
        syscalls.setns(own, syscalls.CLONE_NEWNS)
    finally:
        os.close(own)
    return not os.path.samestat(before, os.stat("/"))


def netlink_socket() -> socket.socket:
    """A NETLINK_ROUTE socket that stays in the network namespace it was opened in, wherever its fd goes."""
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)


def tcp_socket(family: int) -> socket.socket:
    """A TCP socket that stays in the current network namespace; `family` is AF_INET or AF_INET6."""
    if family not in (socket.AF_INET, socket.AF_INET6):
        raise ValueError(f"address family {family} has no TCP")
    return socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)


def loopback_up() -> None:
    """Bring "lo" up in the current network namespace (netdevice(7))."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        answer = fcntl.ioctl(sock, SIOCGIFFLAGS, _IFREQ.pack(b"lo", 0))
        flags = _IFREQ.unpack(answer)[1]
        fcntl.ioctl(sock, SIOCSIFFLAGS, _IFREQ.pack(b"lo", flags | IFF_UP))


def sysctl_namespace(name: str) -> str:
    """Which namespace owns a sysctl: "net" or "ipc"; raises ValueError for one that is the whole host's, or no name.

    Dots and slashes are both separators (sysctl.d(5)); whichever comes first in the name is the one used.
    """
    if not _SYSCTL_NAME.fullmatch(name) or ".." in name or "//" in name:
        raise ValueError(f"sysctl {name!r} is not the name of a sysctl")
    dotted = sysctl_path(name).replace("/", ".")
    if dotted.startswith("net."):
        return "net"
    if dotted.startswith(_IPC_SYSCTLS):
        return "ipc"
    raise ValueError(f"sysctl {name!r} is not namespaced: it would change the whole host")


def sysctl_path(name: str) -> str:
    """The path below /proc/sys. In "net.ipv4.conf.eth0/1.forwarding" the slash is a dot of the interface's name."""
    first = _SEPARATOR.search(name)
    if first is None or first.group() == "/":
        return name
    return name.translate(str.maketrans("./", "/."))


def set_sysctls(settings: Iterable[tuple[str, str]]) -> None:
    """Write sysctls of the current network and IPC namespaces; names must have passed sysctl_namespace().

    Raises ValueError for what this kernel does not have or does not take, OSError.
    """
    settings = list(settings)
    if not settings:
        return
    proc = open_procfs()
    try:
        for name, value in settings:
            try:
                write_proc(proc, f"sys/{sysctl_path(name)}", value)
            except OSError as error:
                if error.errno in _NOT_TAKEN:
                    why = error.strerror or str(error)
                    raise ValueError(f"the kernel does not take {value!r} for sysctl {name}: {why}") from error
                error.add_note(f"setting sysctl {name} to {value!r}")
                raise
    finally:
        os.close(proc)
