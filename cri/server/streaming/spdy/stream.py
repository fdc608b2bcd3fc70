"""One SPDY stream of a client: data both ways in order, windows, half-close and reset.

Windows. The client in use, moby/spdystream, neither sends WINDOW_UPDATE nor heeds ours: it relies on TCP alone. A
strict sender would stop for ever after 64 KiB. So a peer is taken to keep windows from the first SETTINGS or
WINDOW_UPDATE that it sends; what was sent is counted from the start, so that the account is exact from that moment on.
Our own updates are always sent; clients that do keep windows need them.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from cri.server.streaming.inbox import Inbox
from cri.server.streaming.spdy import frames

INITIAL_WINDOW = 64 << 10  # bytes, the protocol's default


class StreamReset(ConnectionError):
    """The client gave this stream up; the others of its connection may go on."""


class Credit:
    """How many bytes the peer has room for, on one stream or on the whole connection."""

    def __init__(self, window: int) -> None:
        self._room = window
        self._void = False
        self._changed = asyncio.Event()

    def grow(self, delta: int) -> None:
        self._room += delta
        self._changed.set()

    def spend(self, size: int) -> None:
        self._room -= size

    def release(self) -> None:
        """Nothing will be sent any more: whoever waits goes on and finds the stream closed."""
        self._void = True
        self._changed.set()

    async def at_most(self, size: int) -> int:
        """Wait until there is room for at least one byte; for how many of `size` there is."""
        while self._room <= 0 and not self._void:
            self._changed.clear()
            await self._changed.wait()
        return size if self._void else min(size, self._room)


class Connection(Protocol):
    """What a stream needs of the session that it is a part of."""

    #: Bytes that the client has room for on a new stream.
    initial_window: int

    async def peer_gone(self) -> bool:
        """Whether the client has left, as far as can be known."""

    async def send(self, frame: bytes) -> None:
        """Raises ConnectionError."""

    async def grant(self, stream_id: int, size: int) -> None:
        """Tell the client that `size` bytes of a stream were taken."""

    async def credit_for(self, stream_credit: Credit, wanted: int) -> int:
        """Wait for room in the client's windows; how many of the `wanted` bytes may be sent now."""

    def forget(self, stream_id: int) -> None:
        """The stream is over."""


class Stream:
    """Made by the session for each SYN_STREAM; `headers` are the client's, names in lower case."""

    def __init__(self, session: Connection, stream_id: int, headers: dict[str, str]) -> None:
        self.stream_id = stream_id
        self.headers = headers
        self.inbox = Inbox(session.peer_gone)
        self.credit = Credit(session.initial_window)
        self._session = session
        self._reset = False
        self._local_end = False
        self._remote_end = False
        self._taken = 0  # bytes read since our last window update

    async def read(self) -> bytes:
        """The next bytes from the client, b"" at its half-close or reset."""
        chunk = await self.inbox.read()
        self._taken += len(chunk)
        if self._taken >= INITIAL_WINDOW // 2 and not self._remote_end:
            taken, self._taken = self._taken, 0
            await self._session.grant(self.stream_id, taken)
        return chunk

    async def write(self, payload: bytes) -> None:
        """Send the payload as fast as the client takes it. Raises StreamReset, ConnectionError."""
        view = memoryview(payload)
        while view:
            size = await self._session.credit_for(self.credit, len(view))
            if self._reset or self._local_end:
                raise StreamReset(f"stream {self.stream_id} is closed")
            await self._session.send(frames.data(self.stream_id, bytes(view[:size])))
            view = view[size:]

    async def close(self) -> None:
        """Half-close: no more data from us. Idempotent."""
        if not self._local_end and not self._reset:
            self._local_end = True
            await self._session.send(frames.data(self.stream_id, b"", fin=True))
            self._forget_if_over()

    def discard(self) -> None:
        """Nobody reads this stream (any more): drops what the client sends on it."""
        self.inbox.discard()

    async def reset(self) -> None:
        """Give up both directions. Idempotent."""
        if not self._reset:
            self.fall()
            await self._session.send(frames.reset(self.stream_id, frames.RST_CANCEL))
            self._session.forget(self.stream_id)

    def ended_by_peer(self) -> None:
        """The client's half-close."""
        self._remote_end = True
        self.inbox.end()
        self._forget_if_over()

    def fall(self) -> None:
        """Reset by the client, or the connection is gone: readers get the end, writers an error."""
        self._reset = True
        self.inbox.end()
        self.credit.release()

    def _forget_if_over(self) -> None:
        if self._local_end and self._remote_end:
            self._session.forget(self.stream_id)
