"""Mounts as fds: new filesystems and copies of mounts that exist, neither visible to anyone until move_mount(2)."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator

from runtime.linux import mountapi as api
from runtime.linux.syscalls import AT_EMPTY_PATH, AT_FDCWD, AT_RECURSIVE, RESOLVE_NO_SYMLINKS, openat2


def filesystem(fstype: str, source: str, data: Iterable[tuple[str, str | None]] = (), attributes: int = 0) -> int:
    """A new superblock as a detached mount. The OSError carries what the filesystem itself said about the failure."""
    fs = api.fsopen(fstype)
    try:
        with _explained(fs):
            api.fsconfig(fs, api.FSCONFIG_SET_STRING, "source", source)
            for key, value in data:
                api.fsconfig(fs, api.FSCONFIG_SET_FLAG if value is None else api.FSCONFIG_SET_STRING, key, value)
            api.fsconfig(fs, api.FSCONFIG_CMD_CREATE)
            return api.fsmount(fs, attributes)
    finally:
        os.close(fs)


@contextlib.contextmanager
def _explained(fs: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        for message in api.read_messages(fs):
            error.add_note(message)
        raise


def bind(source: str, *, recursive: bool = False) -> int:
    """A detached copy of the mount at a path of the host, below that path only; links in it are followed."""
    return api.open_tree(AT_FDCWD, source, api.OPEN_TREE_CLONE | (AT_RECURSIVE if recursive else 0))


def bind_resolved(source: str, *, recursive: bool = False) -> int:
    """The same for a path that was resolved before: a link in it by now is an error (ELOOP), not followed."""
    try:
        fd = openat2(AT_FDCWD, f"{source}/.", os.O_PATH, resolve=RESOLVE_NO_SYMLINKS)  # the dot wakes an automount
    except NotADirectoryError:
        fd = openat2(AT_FDCWD, source, os.O_PATH, resolve=RESOLVE_NO_SYMLINKS)
    try:
        return bind_fd(fd, recursive=recursive)
    finally:
        os.close(fd)


def bind_fd(fd: int, *, recursive: bool = False) -> int:
    """A detached copy of the mount that an O_PATH fd refers to."""
    return api.open_tree(fd, "", api.OPEN_TREE_CLONE | AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0))


def idmap(mount_fd: int, userns_fd: int, path: str) -> None:
    """Show the files of a detached mount of `path` to a user namespace as its own ids' (mount_setattr(2)).

    Raises OSError, which is EINVAL for a filesystem that cannot do it.
    """
    try:
        api.mount_setattr(mount_fd, set_=api.MOUNT_ATTR_IDMAP, userns_fd=userns_fd)
    except OSError as error:
        error.add_note(f"this kernel cannot id-map the filesystem of {path} (tmpfs since Linux 6.3, NFS not at all)")
        raise
