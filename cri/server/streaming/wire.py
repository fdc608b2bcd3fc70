"""The byte stream to one client, below SPDY and WebSocket: deadlines, back-pressure, orderly end.

A session can be quiet for hours and is then ended by the idle limit, not by the calls that wait on it; so reads and
writes here carry no deadline of their own, and one timer per connection watches them all.
"""

from __future__ import annotations

import asyncio
import select
import socket
from contextlib import suppress
from typing import Protocol

CHUNK = 32 << 10  # bytes moved at a time, in either direction
_KEEPALIVE = 60  # seconds of silence before the kernel asks whether the peer is still there


class Wire(Protocol):
    """Where SPDY frames travel: the connection itself, or WebSocket messages that carry them."""

    async def read(self) -> bytes:
        """Some bytes; b"" once the client will send no more."""

    async def write(self, data: bytes) -> None:
        """Send, and return when the peer has taken enough of what was sent. Raises ConnectionError."""

    def peer_gone(self) -> bool:
        """Whether the client has closed its end, also while nobody reads."""


class Connection:
    """One accepted TCP (or TLS) connection. `idle` is the silence in seconds after which it is cut."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, idle: float) -> None:
        self._reader = reader
        self._writer = writer
        self._idle = idle
        self._loop = asyncio.get_running_loop()
        self._active = self._loop.time()
        self._timer = self._loop.call_later(idle, self._check_idle)
        self._socket = writer.get_extra_info("socket")
        self._unread = b""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEPALIVE)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def unread(self, data: bytes) -> None:
        """Put bytes back that came behind the HTTP request; the next read returns them."""
        self._unread = data + self._unread

    async def read(self) -> bytes:
        if self._unread:
            data, self._unread = self._unread, b""
            return data
        data = await self._reader.read(CHUNK)
        self._active = self._loop.time()
        return data

    async def write(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()
        self._active = self._loop.time()

    def peer_gone(self) -> bool:
        descriptor = self._socket.fileno()
        if descriptor < 0 or self._writer.transport.is_closing():
            return True
        poll = select.poll()
        poll.register(descriptor, select.POLLRDHUP)
        return bool(poll.poll(0))

    async def finish(self, linger: float) -> None:
        """Send what is still here, end our direction, and wait up to `linger` seconds for the client to end its own.

        Closing at once would make the kernel answer data that is still under way with a reset, and a reset can take
        our last bytes, the exit status, out of the client's hands.
        """
        self._writer.transport.set_write_buffer_limits(0)
        await self._writer.drain()
        try:
            async with asyncio.timeout(linger):
                if self._writer.can_write_eof():
                    self._writer.write_eof()
                while await self._reader.read(CHUNK):
                    pass
        except (TimeoutError, OSError):
            self._writer.transport.abort()

    async def close(self) -> None:
        """Close at once, dropping what was not sent. Idempotent."""
        self._timer.cancel()
        self._writer.transport.abort()
        with suppress(OSError):
            await self._writer.wait_closed()

    def _check_idle(self) -> None:
        rest = self._active + self._idle - self._loop.time()
        if rest > 0:
            self._timer = self._loop.call_later(rest, self._check_idle)
        else:
            self._writer.transport.abort()
