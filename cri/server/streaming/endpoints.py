"""What a session sees of its client, whatever protocol is below: things to read from and things to write to."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, Protocol

log = logging.getLogger(__name__)


class Source(Protocol):
    """What the client sends on one of its streams."""

    async def read(self) -> bytes:
        """The next bytes, b"" at the client's half-close or when it has left."""


class Sink(Protocol):
    """What the client is sent on one of its streams."""

    async def write(self, payload: bytes) -> None:
        """Return when the client has room for more. Raises ConnectionError."""

    async def close(self) -> None:
        """Half-close, where the protocol has one. Idempotent."""


class Duplex(Source, Sink, Protocol):
    """A stream in both directions."""

    def discard(self) -> None:
        """Drop what the client still sends, so that it does not hold up its other streams."""


async def while_client_stays(reading: Coroutine[Any, Any, None], work: Coroutine[Any, Any, None]) -> None:
    """Run both until either ends, then stop the other.

    The reading ends when the client leaves, which is no failure of anybody. What else goes wrong is logged here, since
    there is nobody left to tell.
    """
    tasks = [asyncio.create_task(reading), asyncio.create_task(work)]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        for failure in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(failure, Exception) and not isinstance(failure, ConnectionError):
                log.error("streaming session failed", exc_info=failure)
