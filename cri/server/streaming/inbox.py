"""What a client sent on one stream and its reader has not yet taken: a bounded queue of bytes.

SPDY as Kubernetes clients speak it, and WebSocket, have no flow control of their own that can be relied on. So a full
inbox stops the reading of the whole connection, and TCP slows the client down.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

LIMIT = 256 << 10  # bytes that may wait in one inbox before its connection is not read any further
PEER_CHECK = 5.0  # seconds between two looks whether the client of a full inbox is still there


class Inbox:
    """`peer_gone` finds out whether the client has closed its connection, which a paused reader would not notice.

    It has to send something for that: the end of a connection whose receiver is full waits behind the data, but the
    kernel of a client that has closed answers what reaches it with a reset, and a reset does not queue.
    """

    def __init__(self, peer_gone: Callable[[], Awaitable[bool]], limit: int = LIMIT) -> None:
        self._chunks: deque[bytes] = deque()
        self._size = 0
        self._limit = limit
        self._peer_gone = peer_gone
        self._ended = False
        self._unwanted = False
        self._changed = asyncio.Event()

    async def put(self, chunk: bytes) -> None:
        """Add the chunk and return when there is room for more. Raises ConnectionResetError if the client left."""
        if self._unwanted or self._ended or not chunk:
            return
        self._chunks.append(chunk)
        self._size += len(chunk)
        self._changed.set()
        while self._size > self._limit and not self._unwanted:
            if not await self._wait(PEER_CHECK) and await self._peer_gone():
                raise ConnectionResetError("the client left while its data waited")

    def end(self) -> None:
        """No more data will come; the reader gets what is here and then the end."""
        self._ended = True
        self._changed.set()

    @property
    def unwanted(self) -> bool:
        return self._unwanted

    def discard(self) -> None:
        """There is no reader any more: drops what is here and all that comes."""
        self._unwanted = True
        self._chunks.clear()
        self._size = 0
        self._changed.set()

    async def read(self) -> bytes:
        """The next chunk, b"" at the end."""
        while not self._chunks:
            if self._ended or self._unwanted:
                return b""
            await self._wait(None)
        chunk = self._chunks.popleft()
        self._size -= len(chunk)
        self._changed.set()
        return chunk

    async def _wait(self, timeout: float | None) -> bool:
        """Until something changed; False when nothing did in time."""
        self._changed.clear()
        try:
            async with asyncio.timeout(timeout):
                return await self._changed.wait()
        except TimeoutError:
            return False
