"""Unix sockets that gRPC serves: a dead predecessor's file is taken over, a living one's is not."""

from __future__ import annotations

import urllib.parse
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc

from runtime.linux.exclusive import make_room

THREADS = 8


class SocketError(Exception):
    """A socket cannot be served; the message says which and why."""


@contextmanager
def served(path: Path, handlers: Iterable[grpc.GenericRpcHandler], *, grace: float) -> Iterator[None]:
    """Serve at `path` (mode 0600); at the end running calls have `grace` seconds. Raises SocketError, OSError."""
    server = _bound(path, handlers)
    path.chmod(0o600)
    server.start()
    try:
        yield
    finally:
        path.unlink(missing_ok=True)  # first, so that nobody new comes
        server.stop(grace).wait(grace + 1)


def _bound(path: Path, handlers: Iterable[grpc.GenericRpcHandler]) -> grpc.Server:
    path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
    make_room(path, "choose another --name or --endpoint")
    server = grpc.server(ThreadPoolExecutor(THREADS, thread_name_prefix=path.name), handlers=list(handlers))
    try:
        server.add_insecure_port(f"unix:{urllib.parse.quote(str(path))}")
    except RuntimeError as error:
        raise SocketError(f"{path}: cannot be bound: {error}") from error
    return server
