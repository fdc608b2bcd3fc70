"""The kernel's fd-based mount API: fsopen, fsconfig, fsmount, open_tree, move_mount and mount_setattr.

It stands apart from `syscalls` because it is a language of its own: a mount is made and changed while it is only
an fd, and enters the tree of mounts by one call, onto an fd. No path is walked twice, so nobody can swap it in between.
All names and constants are those of the man pages; all fds are close-on-exec.
"""

from __future__ import annotations

import os
import struct
from ctypes import c_char_p, c_int, c_size_t, c_uint, c_void_p
from typing import Final

from runtime.linux.syscalls import AT_EMPTY_PATH, AT_FDCWD, numbered

FSOPEN_CLOEXEC: Final = 1
FSMOUNT_CLOEXEC: Final = 1
FSCONFIG_SET_FLAG: Final = 0
FSCONFIG_SET_STRING: Final = 1
FSCONFIG_CMD_CREATE: Final = 6

OPEN_TREE_CLONE: Final = 1
OPEN_TREE_CLOEXEC: Final = os.O_CLOEXEC
MOVE_MOUNT_F_EMPTY_PATH: Final = 0x04
MOVE_MOUNT_T_EMPTY_PATH: Final = 0x40

MOUNT_ATTR_RDONLY: Final = 0x01
MOUNT_ATTR_NOSUID: Final = 0x02
MOUNT_ATTR_NODEV: Final = 0x04
MOUNT_ATTR_NOEXEC: Final = 0x08
MOUNT_ATTR__ATIME: Final = 0x70
MOUNT_ATTR_RELATIME: Final = 0x00
MOUNT_ATTR_NOATIME: Final = 0x10
MOUNT_ATTR_STRICTATIME: Final = 0x20
MOUNT_ATTR_NODIRATIME: Final = 0x80
MOUNT_ATTR_IDMAP: Final = 0x100000
MOUNT_ATTR_NOSYMFOLLOW: Final = 0x200000


# struct mount_attr of mount_setattr(2): attr_set, attr_clr, propagation, userns_fd.
_MOUNT_ATTR: Final = struct.Struct("=4Q")

_open_tree = numbered("open_tree", c_int, c_char_p, c_uint)
_move_mount = numbered("move_mount", c_int, c_char_p, c_int, c_char_p, c_uint)
_fsopen = numbered("fsopen", c_char_p, c_uint)
_fsconfig = numbered("fsconfig", c_int, c_uint, c_char_p, c_char_p, c_int)
_fsmount = numbered("fsmount", c_int, c_uint, c_uint)
_mount_setattr = numbered("mount_setattr", c_int, c_char_p, c_uint, c_void_p, c_size_t)


def fsopen(fstype: str) -> int:
    """A new filesystem context (fsopen(2)); what the filesystem has to say can be read from it as text."""
    fd: int = _fsopen(430, os.fsencode(fstype), FSOPEN_CLOEXEC)
    return fd


def fsconfig(fd: int, command: int, key: str | None = None, value: str | None = None) -> None:
    """Set a parameter of a filesystem context, or create the superblock (fsconfig(2)). A value is at most 255 bytes."""
    _fsconfig(
        431, fd, command, None if key is None else os.fsencode(key), None if value is None else os.fsencode(value), 0
    )


def fsmount(fd: int, attributes: int = 0) -> int:
    """The created superblock as a detached mount with MOUNT_ATTR_* attributes (fsmount(2))."""
    mount_fd: int = _fsmount(432, fd, FSMOUNT_CLOEXEC, attributes)
    return mount_fd


def open_tree(dirfd: int, path: str, flags: int) -> int:
    """The mount at `path`; with OPEN_TREE_CLONE a detached copy, i.e. a bind mount not yet attached (open_tree(2))."""
    fd: int = _open_tree(428, dirfd, os.fsencode(path), flags | OPEN_TREE_CLOEXEC)
    return fd


def move_mount(mount_fd: int, target_fd: int) -> None:
    """Attach a detached mount (or move an attached one) onto what `target_fd` refers to (move_mount(2))."""
    _move_mount(429, mount_fd, b"", target_fd, b"", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH)


def move_mount_at(mount_fd: int, target: str) -> None:
    """Attach a detached mount onto a path of the host that only root can change."""
    _move_mount(429, mount_fd, b"", AT_FDCWD, os.fsencode(target), MOVE_MOUNT_F_EMPTY_PATH)


def mount_setattr(
    mount_fd: int, *, set_: int = 0, clear: int = 0, propagation: int = 0, userns_fd: int = 0, flags: int = 0
) -> None:
    """Change attributes or propagation of the mount behind `mount_fd`; AT_RECURSIVE in `flags` for its whole tree."""
    attributes = _MOUNT_ATTR.pack(set_, clear, propagation, userns_fd)
    _mount_setattr(442, mount_fd, b"", flags | AT_EMPTY_PATH, attributes, len(attributes))


def read_messages(fs_fd: int) -> list[str]:
    """What the filesystem said about a failed fsconfig or fsmount: lines such as "e overlay: unknown parameter"."""
    messages: list[str] = []
    for _ in range(32):
        try:
            messages.append(os.read(fs_fd, 4096).decode(errors="replace").strip())
        except OSError:  # ENODATA: no more messages (fsopen(2))
            break
    return messages
