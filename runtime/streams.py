"""The three standard streams of a container's process, as fds on both sides.

with terminal   one pty, made inside the container's own devpts; the master goes back over the status channel
without         a pipe each; stdin is the null device when nobody will write to it
"""

from __future__ import annotations

import fcntl
import os
import stat
import struct
import termios
from collections.abc import Sequence
from typing import Final

from runtime.linux import mountapi, mounts, paths
from runtime.linux.syscalls import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, fstatfs_type, openat2
from runtime.tree import Tree

DEVPTS_SUPER_MAGIC: Final = 0x1CD1
PTMX_DEVICE: Final = os.makedev(5, 2)
TIOCGPTPEER: Final = 0x5441
TIOCSPTLCK: Final = 0x40045431


def open_terminal(root: int, owner: int) -> tuple[int, int]:
    """A new pty (master, slave) of the devpts at /dev/pts below the directory fd `root`, owned by uid `owner`.

    The slave comes from the master, not from a path, and the multiplexer is checked: CVE-2025-52565 was a swapped one.
    """
    master = openat2(root, "dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY, 0, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS)
    if fstatfs_type(master) != DEVPTS_SUPER_MAGIC or os.fstat(master).st_rdev != PTMX_DEVICE:
        raise OSError("/dev/pts/ptmx in the container is no pseudoterminal multiplexer")
    fcntl.ioctl(master, TIOCSPTLCK, struct.pack("i", 0))
    slave = fcntl.ioctl(master, TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    os.fchown(slave, owner, -1)
    return master, slave


def set_size(master: int, rows: int, columns: int) -> None:
    """The terminal's size in characters; its foreground processes get SIGWINCH (ioctl_tty(2))."""
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", rows & 0xFFFF, columns & 0xFFFF, 0, 0))


def bind_console(tree: Tree, slave: int) -> None:
    """Show the terminal as /dev/console, as a container with a terminal expects (runtime-linux.md)."""
    place = paths.make_file(tree.root, "/dev/console", 0o600)
    cover = mounts.bind_fd(slave)
    mountapi.move_mount(cover, place)
    os.close(cover)
    os.close(place)


def become_stdio(streams: Sequence[int], root: int, owner: int) -> None:
    """Make the three fds of `streams` (-1: the null device of the root) this process's 0, 1 and 2.

    Pipes are given to the user, so that it can open /dev/stdout again; other things are not ours to give away.
    """
    null = -1
    for target, fd in enumerate(streams):
        if fd < 0:
            null = fd = null if null >= 0 else open_null(root)
        elif owner and stat.S_ISFIFO(os.fstat(fd).st_mode):
            os.fchown(fd, owner, -1)
        os.dup2(fd, target)


def become_terminal(slave: int, *, own: bool = True) -> None:
    """Make the terminal 0, 1 and 2 and, with `own`, this session's own; the caller has called setsid()."""
    if own:
        fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
    for target in range(3):
        os.dup2(slave, target)


def open_null(root: int) -> int:
    """The null device inside the root, read and write: the host's own would let root in the container chmod that."""
    fd = openat2(root, "dev/null", os.O_RDWR | os.O_NONBLOCK, 0, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS)
    found = os.fstat(fd)
    if not stat.S_ISCHR(found.st_mode) or found.st_rdev != os.makedev(1, 3):
        raise OSError("/dev/null in the container is not the null device")
    return fd
