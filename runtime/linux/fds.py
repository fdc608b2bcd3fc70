"""File descriptors with one owner, and the few things that are done to them everywhere.

An fd that is only an int is leaked or closed twice sooner or later; a long-lived process such as a shim keeps its own
in `Fd` objects. Short-lived ones inside one function stay ints under `contextlib.ExitStack` or try/finally.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterable
from typing import Final

F_SETPIPE_SZ: Final = 1031


class Fd:
    """Owner of one fd: closed exactly once, by close(), at the end of a with block, or given away by take()."""

    __slots__ = ("_fd",)

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def fileno(self) -> int:
        """The fd; raises ValueError after close() or take()."""
        if self._fd < 0:
            raise ValueError("file descriptor is closed")
        return self._fd

    @property
    def closed(self) -> bool:
        """Whether the fd has been closed or taken."""
        return self._fd < 0

    def take(self) -> int:
        """Hand the fd over to the caller, who closes it from now on."""
        fd = self.fileno()
        self._fd = -1
        return fd

    def close(self) -> None:
        """Close; a second call does nothing."""
        if self._fd >= 0:
            os.close(self.take())

    def __enter__(self) -> Fd:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def close_all(fds: Iterable[int]) -> None:
    """Close fds that nobody wants, whatever becomes of one of them: Linux has closed it anyway (close(2), NOTES)."""
    for fd in fds:
        with contextlib.suppress(OSError):
            os.close(fd)


def pipe(*, read_blocks: bool = True, write_blocks: bool = True, size: int = 0) -> tuple[Fd, Fd]:
    """A close-on-exec pipe as (read end, write end); `size` in bytes is a wish that the user's pipe quota may deny."""
    read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
    read, write = Fd(read_fd), Fd(write_fd)
    if not read_blocks:
        os.set_blocking(read_fd, False)
    if not write_blocks:
        os.set_blocking(write_fd, False)
    if size:
        try:
            fcntl.fcntl(write.fileno(), F_SETPIPE_SZ, size)
        except PermissionError:
            size = 0  # pipe(7), pipe-user-pages-soft: the default capacity works too
    return read, write
