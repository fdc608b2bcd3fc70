"""Pipes, pseudo-terminals and sockets of a session, read and written from the event loop without threads.

asyncio's own pipe transports buffer on their own account; here a read happens only when its data can be sent on, so
that a session costs one chunk of memory per direction, however slow its client is.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable

from cri.server.streaming.wire import CHUNK


class Descriptor:
    """Owns one file descriptor; `close` is idempotent."""

    def __init__(self, descriptor: int) -> None:
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor
        self._loop = asyncio.get_running_loop()

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    async def _ready(self, watch: Callable[..., None], unwatch: Callable[[int], bool]) -> None:
        event = asyncio.Event()
        watch(self._descriptor, event.set)
        try:
            await event.wait()
        finally:
            unwatch(self._descriptor)


class Readable(Descriptor):
    """The end to read from: a pipe, a terminal's master, a socket."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor)
        self._waits_since: float | None = None
        self._ended = False

    def quiet_for(self, seconds: float) -> bool:
        """Whether a read has waited that long for the other side to write, or its end was read."""
        if self._waits_since is None:
            return self._ended
        return self._loop.time() - self._waits_since >= seconds

    async def read(self) -> bytes:
        """Up to CHUNK bytes; b"" at the end. A pseudo-terminal whose last user left counts as ended."""
        while True:
            try:
                chunk = os.read(self._descriptor, CHUNK)
            except BlockingIOError:
                await self._until_readable()
                continue
            except OSError as error:
                if error.errno != errno.EIO:
                    raise
                chunk = b""
            self._ended = not chunk
            return chunk

    async def _until_readable(self) -> None:
        self._waits_since = self._loop.time()
        try:
            await self._ready(self._loop.add_reader, self._loop.remove_reader)
        finally:
            self._waits_since = None


class Writable(Descriptor):
    """The end to write to."""

    async def write(self, data: bytes) -> None:
        """Write all of it. Raises BrokenPipeError (or EIO of a terminal) when nobody reads any more."""
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self._descriptor, view) :]
            except BlockingIOError:
                await self._ready(self._loop.add_writer, self._loop.remove_writer)
