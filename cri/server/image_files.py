"""Reading a file of an image without mounting it: the layers of its overlay, looked at from the top.

Overlay's rules (Documentation/filesystems/overlayfs.rst) are few: the topmost entry of a name wins, directories merge,
a character device 0/0 hides the name in the layers below, an opaque directory hides the directories below it. Symbolic
links belong to the merged tree, so a path is walked here one name at a time, always relative to an open directory:
nothing that an image says can lead out of its layers.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator, Sequence

MAX_LINKS = 40  # as the kernel allows (path_resolution(7))
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
#: Found without being opened: a layer can hold devices, and to open one is to use it (a watchdog, a tape drive).
_FOUND = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_OPAQUE = ("trusted.overlay.opaque", "user.overlay.opaque")


def read_image_file(layers: Sequence[str], path: str, limit: int) -> bytes | None:
    """The content of a regular file, or None when the image has no such file; `layers` from top to bottom.

    Raises OSError: EFBIG beyond `limit` bytes, EINVAL for a FIFO, device or directory, ELOOP for circular links.
    """
    with contextlib.ExitStack() as opened:
        walk = _Walk(opened, layers)
        try:
            fd = walk.open(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        opened.callback(os.close, fd)
        return _read(fd, path, limit)


def _read(found: int, path: str, limit: int) -> bytes:
    if not stat.S_ISREG(os.fstat(found).st_mode):
        raise OSError(errno.EINVAL, "not a regular file", path)
    fd = os.open(f"/proc/self/fd/{found}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return _content(fd, path, limit)
    finally:
        os.close(fd)


def _content(fd: int, path: str, limit: int) -> bytes:
    chunks, left = [], limit + 1
    while left and (chunk := os.read(fd, min(left, 1 << 16))):
        chunks.append(chunk)
        left -= len(chunk)
    if not left:
        raise OSError(errno.EFBIG, f"larger than the limit of {limit} bytes", path)
    return b"".join(chunks)


def merged_paths(layers: Sequence[str], path: str) -> list[str]:
    """What lies at `path` of an image as paths of the host: one file, or the directories that merge there, top first.

    Raises OSError, FileNotFoundError among others, for a path that the image does not have.
    """
    with contextlib.ExitStack() as opened:
        walk = _Walk(opened, layers)
        try:
            fds = [walk.open(path)]
            opened.callback(os.close, fds[0])
        except IsADirectoryError:
            fds = walk.place
        return [os.readlink(f"/proc/self/fd/{fd}") for fd in fds]


class _Walk:
    """One resolution; a place is the list of fds of the directories that merge there, topmost first."""

    def __init__(self, opened: contextlib.ExitStack, layers: Sequence[str]) -> None:
        self._opened = opened
        self._places = [[self._keep(os.open(layer, _DIRECTORY)) for layer in layers]]
        self._links = 0

    def _keep(self, fd: int) -> int:
        self._opened.callback(os.close, fd)
        return fd

    @property
    def place(self) -> list[int]:
        """Where the walk stands."""
        return self._places[-1]

    def open(self, path: str) -> int:
        """An O_PATH fd of the file at `path`, links followed; IsADirectoryError when the walk ends at a directory."""
        names = _names(path)
        while names:
            name = names.pop(0)
            if name == "..":
                del self._places[max(1, len(self._places) - 1) :]
                continue
            where, mode = self._find(name)
            if stat.S_ISLNK(mode):
                names = self._follow(os.readlink(name, dir_fd=where)) + names
            elif stat.S_ISDIR(mode):
                self._places.append([self._keep(fd) for fd in self._merge(name)])
            elif names:
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
            else:
                return os.open(name, _FOUND, dir_fd=where)
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)

    def _follow(self, link: str) -> list[str]:
        self._links += 1
        if self._links > MAX_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), link)
        if link.startswith("/"):
            del self._places[1:]
        return _names(link)

    def _find(self, name: str) -> tuple[int, int]:
        """The topmost entry of a name: fd of its directory and its mode."""
        for fd, status in self._entries(name):
            return fd, status.st_mode
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)

    def _entries(self, name: str) -> Iterator[tuple[int, os.stat_result]]:
        for fd in self.place:
            try:
                status = os.stat(name, dir_fd=fd, follow_symlinks=False)
            except FileNotFoundError:
                continue
            if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
                return
            yield fd, status

    def _merge(self, name: str) -> Iterator[int]:
        for fd, status in self._entries(name):
            if not stat.S_ISDIR(status.st_mode):
                return
            directory = os.open(name, _DIRECTORY, dir_fd=fd)
            yield directory
            if any(_xattr(directory, key) == b"y" for key in _OPAQUE):
                return


def _names(path: str) -> list[str]:
    return [name for name in path.split("/") if name not in ("", ".")]


def _xattr(fd: int, key: str) -> bytes:
    try:
        return os.getxattr(fd, key)
    except OSError:  # absent, or a filesystem without extended attributes: not opaque either way
        return b""
