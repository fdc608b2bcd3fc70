"""Paths inside a tree that someone hostile has written: the kernel resolves them as if the tree were the whole world.

Image layers and volumes contain symbolic links to anywhere, and a running container can swap them while we look. So a
path is resolved once, by openat2(2) with RESOLVE_IN_ROOT, and what comes back is an O_PATH fd: everything else (mount,
stat, create beneath) is done to that fd. Absolute links and ".." stay inside the tree; magic links are refused.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import Final

from runtime.linux.syscalls import (
    RESOLVE_BENEATH,
    RESOLVE_IN_ROOT,
    RESOLVE_NO_MAGICLINKS,
    RESOLVE_NO_SYMLINKS,
    fstatfs_type,
    openat2,
)

PROC_SUPER_MAGIC: Final = 0x9FA0
DEPTH_MAX: Final = 256
LINKS_MAX: Final = 40
_INSIDE: Final = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS
_ONE_STEP: Final = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS
_RETRIES: Final = 64


def open_inside(root: int, path: str, flags: int = os.O_PATH, *, follow: bool = True) -> int:
    """Open `path` in the tree behind the directory fd `root`; with follow=False no symbolic link may be on the way.

    Raises OSError: ENOENT, ELOOP for a link that is not allowed, EXDEV or EAGAIN when the tree kept changing under us.
    """
    resolve = _INSIDE if follow else RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS
    for attempt in range(_RETRIES):
        try:
            return openat2(root, path.lstrip("/") or ".", flags, resolve=resolve)
        except BlockingIOError:  # EAGAIN: a rename raced with "..", the man page says to try again
            if attempt == _RETRIES - 1:
                raise
    raise AssertionError("unreachable")


def make_directory(root: int, path: str, mode: int = 0o755) -> int:
    """Open the directory at `path`, creating what is missing: an O_PATH fd. Raises OSError, ENOTDIR among others.

    A link to what does not exist is no obstacle: what it means inside the tree is made. Images have /var/run -> /run.
    """
    for _ in range(LINKS_MAX):
        try:
            return open_inside(root, path, os.O_PATH | os.O_DIRECTORY)
        except FileNotFoundError:
            made = _make_one(root, path, mode)
            if isinstance(made, int):
                return made
            path = made
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)


def make_file(root: int, path: str, mode: int = 0o644) -> int:
    """Open what is at `path` if it is no directory, else create an empty file there: an O_PATH fd. EISDIR, ENOTDIR."""
    for _ in range(LINKS_MAX):
        try:
            fd = open_inside(root, path)
        except FileNotFoundError:
            made = _create_file(root, path, mode)
            if isinstance(made, int):
                return made
            path = made
            continue
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            os.close(fd)
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        return fd
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)


def _create_file(root: int, path: str, mode: int) -> int | str:
    """Create the file and open it, or the path that a link in its place leads to."""
    directory, name = os.path.split(path.rstrip("/"))
    if name in ("", ".", ".."):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    parent = make_directory(root, directory)
    try:
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW
        os.close(openat2(parent, name, flags, mode, _ONE_STEP))
        return openat2(parent, name, os.O_PATH | os.O_NOFOLLOW, resolve=_ONE_STEP)
    except FileExistsError:
        return os.path.join(directory, os.readlink(name, dir_fd=parent))
    finally:
        os.close(parent)


def _make_one(root: int, path: str, mode: int) -> int | str:
    """Make the missing directories and open the last; or, at a dangling link, the path with the link replaced."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if len(parts) > DEPTH_MAX:
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), path)
    parent, kept = _deepest_existing(root, parts)
    try:
        for place in range(kept, len(parts)):
            if parts[place] == "..":  # below something that does not exist it means nothing
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
            with contextlib.suppress(FileExistsError):  # made by someone else meanwhile, or a dangling link
                os.mkdir(parts[place], mode, dir_fd=parent)
            try:
                child = openat2(parent, parts[place], os.O_PATH | os.O_DIRECTORY, resolve=_ONE_STEP)
            except OSError as error:
                if error.errno != errno.ELOOP:
                    raise
                target = os.readlink(parts[place], dir_fd=parent)
                os.close(parent)
                return os.path.join("/", *parts[:place], target, *parts[place + 1 :])
            os.close(parent)
            parent = child
    except BaseException:
        os.close(parent)
        raise
    return parent


def _deepest_existing(root: int, parts: list[str]) -> tuple[int, int]:
    """The fd of the longest prefix that is a directory, and how many parts it has."""
    for kept in range(len(parts) - 1, -1, -1):
        with contextlib.suppress(FileNotFoundError):
            return open_inside(root, "/".join(parts[:kept]), os.O_PATH | os.O_DIRECTORY), kept
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "/".join(parts))


def open_procfs(path: str = "/proc") -> int:
    """An O_PATH fd of a directory that is checked to be procfs, so that writes through it reach the kernel.

    CVE-2019-16884 and CVE-2025-52881: with something else mounted there, a security setting is written nowhere.
    """
    fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    if fstatfs_type(fd) != PROC_SUPER_MAGIC:
        os.close(fd)
        raise OSError(errno.EINVAL, "is not a procfs", path)
    return fd


def write_proc(proc: int, path: str, value: str) -> None:
    """Write a file beneath a checked procfs fd in one write(2), following no link."""
    fd = openat2(proc, path, os.O_WRONLY | os.O_TRUNC, resolve=_ONE_STEP)
    try:
        if fstatfs_type(fd) != PROC_SUPER_MAGIC:
            raise OSError(errno.EINVAL, "is not on a procfs", path)
        os.write(fd, value.encode())
    finally:
        os.close(fd)


def read_proc(proc: int, path: str) -> str:
    """Read a small file beneath a checked procfs fd, following no link."""
    fd = openat2(proc, path, os.O_RDONLY, resolve=RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS)
    try:
        return os.read(fd, 4096).decode()
    finally:
        os.close(fd)
