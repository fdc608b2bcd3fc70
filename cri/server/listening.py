"""One crid per state directory, one socket that only root can open."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import grpc.aio


class AlreadyRunning(RuntimeError):
    """Another process has the directory or the socket."""


@contextlib.contextmanager
def exclusive(directory: Path) -> Iterator[None]:
    """Hold the directory (made 0700 when missing) for as long as the block runs; raises AlreadyRunning, OSError."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory.chmod(0o700)
    fd = os.open(directory / "crid.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyRunning(
                f"another crid uses {directory}; stop it, or give this one --root and --state"
            ) from None
        yield
    finally:
        os.close(fd)


def bind(server: grpc.aio.Server, path: Path) -> None:
    """Let the server listen on a new socket of mode 0600; a dead one in its place is removed.

    Raises AlreadyRunning when somebody answers there, OSError.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    _remove_dead(path)
    former = os.umask(0o177)  # the socket must not be open to others even for the moment before a chmod
    try:
        server.add_insecure_port(f"unix:{path}")
    except RuntimeError as error:
        raise OSError(f"cannot listen on {path}: {error}") from error
    finally:
        os.umask(former)


def _remove_dead(path: Path) -> None:
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise AlreadyRunning(f"{path} is there and is no socket; move it away, or give another --listen")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
    raise AlreadyRunning(f"somebody already listens on {path}; stop it, or give another --listen")
