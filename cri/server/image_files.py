"""Reading a file of an image without mounting it: the layers of its overlay, looked at from the top.

Overlay's rules (Documentation/filesystems/overlayfs.rst) are few: the topmost entry of a name wins, directories merge,
a character device 0/0 hides the name in the layers below, an opaque directory hides the directories below it. Symbolic
links belong to the merged tree, so a path is walked here one name at a time, always relative to an open directory:
nothing that an image says can lead out of its layers. Nor can it take more descriptors than two directories have
layers, or more than so many steps: a walk has only the directory open at which it stands.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator, Sequence

MAX_LINKS = 40  # as the kernel allows (path_resolution(7))
MAX_STEPS = 1024
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
#: Found without being opened: a layer can hold devices, and to open one is to use it (a watchdog, a tape drive).
_FOUND = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_OPAQUE = ("trusted.overlay.opaque", "user.overlay.opaque")


def read_image_file(layers: Sequence[str], path: str, limit: int) -> bytes | None:
    """The content of a regular file, or None when the image has no such file; `layers` from top to bottom.

    Raises OSError: EFBIG beyond `limit` bytes, EINVAL for a FIFO, device or directory, ELOOP for circular links.
    """
    with contextlib.ExitStack() as opened:
        walk = opened.enter_context(contextlib.closing(_Walk(layers)))
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
        walk = opened.enter_context(contextlib.closing(_Walk(layers)))
        try:
            fds = [walk.open(path)]
            opened.callback(os.close, fds[0])
        except IsADirectoryError:
            fds = walk.place
        return [os.readlink(f"/proc/self/fd/{fd}") for fd in fds]


class _Walk:
    """One resolution. `place` is where it stands: fds of the directories that merge there, topmost first."""

    def __init__(self, layers: Sequence[str]) -> None:
        self._layers = layers
        self._links = self._steps = 0
        self._above: list[str] = []
        self.place: list[int] = []

    def close(self) -> None:
        """Let go of where it stands."""
        _close(self.place)
        self.place = []

    def _stand_at(self, names: Sequence[str]) -> None:
        """Go to a directory below the root, of names that are no links."""
        self.close()
        self._above = []
        for layer in self._layers:
            self.place.append(os.open(layer, _DIRECTORY))
        for name in names:
            self._enter(name)

    def _enter(self, name: str) -> None:
        self._steps += 1
        if self._steps > MAX_STEPS:
            raise OSError(errno.ELOOP, f"more than {MAX_STEPS} directories on the way", name)
        former, self.place = self.place, []
        try:
            for fd in _merge(former, name):
                self.place.append(fd)
        finally:
            _close(former)
        self._above.append(name)

    def open(self, path: str) -> int:
        """An O_PATH fd of the file at `path`, links followed; IsADirectoryError when the walk ends at a directory."""
        names = _names(path)
        self._stand_at([])
        while names:
            name = names.pop(0)
            if name == "..":
                if self._above:
                    self._stand_at(self._above[:-1])
                continue
            where, mode = _find(self.place, name)
            if stat.S_ISLNK(mode):
                names = self._follow(os.readlink(name, dir_fd=where)) + names
            elif stat.S_ISDIR(mode):
                self._enter(name)
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
            self._stand_at([])
        return _names(link)


def _close(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)


def _find(place: Sequence[int], name: str) -> tuple[int, int]:
    """The topmost entry of a name: fd of its directory and its mode."""
    for fd, status in _entries(place, name):
        return fd, status.st_mode
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)


def _entries(place: Sequence[int], name: str) -> Iterator[tuple[int, os.stat_result]]:
    for fd in place:
        try:
            status = os.stat(name, dir_fd=fd, follow_symlinks=False)
        except FileNotFoundError:
            continue
        if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
            return
        yield fd, status


def _merge(place: Sequence[int], name: str) -> Iterator[int]:
    for fd, status in _entries(place, name):
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
