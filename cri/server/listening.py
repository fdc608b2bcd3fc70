"""One crid per state directory, one socket that only root can open."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from runtime.linux.exclusive import locked, make_room

if TYPE_CHECKING:
    import grpc.aio


@contextlib.contextmanager
def exclusive(directory: Path) -> Iterator[None]:
    """Hold the directory (made 0700 when missing) for as long as the block runs; raises Taken, OSError."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory.chmod(0o700)
    with locked(directory / "crid.lock", "give this crid --root and --state"):
        yield


def bind(server: grpc.aio.Server, path: Path) -> None:
    """Let the server listen on a new socket of mode 0600; a dead one in its place is removed.

    Raises Taken when somebody answers there, OSError.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    make_room(path, "give this crid another --listen")
    former = os.umask(0o177)  # the socket must not be open to others even for the moment before a chmod
    try:
        server.add_insecure_port(f"unix:{path}")
    except RuntimeError as error:
        raise OSError(f"cannot listen on {path}: {error}") from error
    finally:
        os.umask(former)
