"""What only one process may have at a time: a directory, by a lock in it, and the path of a unix socket.

Neither outlives the process that has it: the kernel drops the lock, and where a dead process's socket lies nobody
answers.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

PROBE_SECONDS: Final = 2.0


class Taken(OSError):
    """Somebody else has it; the message says what, and what to do."""


@contextlib.contextmanager
def locked(path: Path, instead: str) -> Iterator[None]:
    """Hold the lock file, which is named for its holder, while the block runs; `instead` is what else one can do.

    Raises Taken, OSError.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Taken(f"another {path.stem} uses {path.parent}; stop it, or {instead}") from None
        yield
    finally:
        os.close(fd)


def make_room(path: Path, instead: str) -> None:
    """Remove the socket that a killed process has left at the path. Raises Taken when it is somebody's who lives."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise Taken(f"{path} is there and is no socket; move it away, or {instead}")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(PROBE_SECONDS)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)
            return
        except (BlockingIOError, TimeoutError):
            pass  # it listens, and is busy
    raise Taken(f"another process listens on {path}; stop it, or {instead}")
