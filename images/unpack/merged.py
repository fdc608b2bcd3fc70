"""The layers below as overlayfs would show them, looked into without mounting anything.

Rules of the kernel's Documentation/filesystems/overlayfs.rst: the topmost entry of a name wins, a whiteout (character
device 0:0) hides it, directories of the same name are merged down to the first opaque one.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

OPAQUE_XATTR = "trusted.overlay.opaque"
LOOK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


class Merged:
    """A view of layer directories, the top one first. It keeps no fds open between two questions."""

    def __init__(self, layers: Sequence[str | os.PathLike[str]]) -> None:
        self._layers = tuple(layers)

    @contextmanager
    def find(self, path: bytes) -> Iterator[int | None]:
        """An O_PATH fd of what is at `path`, a link itself included, or None; valid inside the `with`."""
        with ExitStack() as fds:
            yield self._find(path, fds)

    def names(self) -> set[bytes]:
        """Every name in the root directories that is not hidden."""
        shown: set[bytes] = set()
        hidden: set[bytes] = set()
        for layer in self._layers:
            for name in os.listdir(os.fsencode(layer)):
                status = os.lstat(os.path.join(os.fsencode(layer), name))
                (hidden if is_whiteout(status) else shown).add(name)
            hidden -= shown
        return {name for name in shown if self.exists(name)}

    def exists(self, path: bytes) -> bool:
        """Whether anything is at `path`."""
        with self.find(path) as fd:
            return fd is not None

    def _find(self, path: bytes, fds: ExitStack) -> int | None:
        merged = [_opened(os.fsencode(layer), None, fds) for layer in self._layers]
        found: int | None = merged[0] if merged else None
        for name in path.split(b"/") if path else ():
            found, merged = _step(merged, name, fds)
            if found is None:
                return None
        return found


def _step(merged: list[int], name: bytes, fds: ExitStack) -> tuple[int | None, list[int]]:
    """What has this name in the merged directory, and its own merged directories if it is one."""
    found: int | None = None
    below: list[int] = []
    for directory in merged:
        try:
            fd = _opened(name, directory, fds)
        except FileNotFoundError:
            continue
        status = os.fstat(fd)
        if is_whiteout(status):
            break
        if not stat.S_ISDIR(status.st_mode):
            found = fd if found is None else found
            break
        found = fd if found is None else found
        below.append(fd)
        if is_opaque(fd):
            break
    return found, below


def _opened(name: bytes, directory: int | None, fds: ExitStack) -> int:
    fd = os.open(name, LOOK, dir_fd=directory)
    fds.callback(os.close, fd)
    return fd


def is_whiteout(status: os.stat_result) -> bool:
    """Whether this is overlayfs's mark for a name that is gone."""
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def is_opaque(fd: int) -> bool:
    """Whether a directory hides those below it."""
    try:
        return os.getxattr(f"/proc/self/fd/{fd}", OPAQUE_XATTR) == b"y"
    except OSError:  # ENODATA, or a filesystem without such attributes
        return False
