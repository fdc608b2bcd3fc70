"""Calls over a Channel from asyncio: requests with ids and deadlines on one side, replies and events from the other.

    request  {"id": 7, "op": "start", ...} + fds
    reply    {"re": 7, ...} + fds            or {"re": 7, "error": {...}}
    event    {"event": "exited", ...}

One reader per connection. A far side that does not answer in time fails that one call; one that is gone or speaks
nonsense fails all calls under way and is reported once.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Sequence
from typing import Any

from runtime.errors import ShimLost, from_doc
from runtime.linux.channel import Channel
from runtime.linux.fds import close_all
from runtime.linux.messages import Message, ProtocolError

BATCH = 64  # messages read before other tasks get their turn
SEND_SECONDS = 5.0


class Calls:
    """The client's end of one connection; all methods belong to the event loop's thread."""

    def __init__(
        self, channel: Channel, far_side: str, on_event: Callable[[dict[str, Any]], None], on_lost: Callable[[], None]
    ) -> None:
        """`far_side` names it in errors. `on_lost` is called once, not after close()."""
        self._channel = channel
        self._far_side = far_side
        self._on_event = on_event
        self._on_lost = on_lost
        self._waiting: dict[int, asyncio.Future[Message]] = {}
        self._last_id = 0
        self._open = True
        self._sending = asyncio.Lock()
        self._loop = asyncio.get_running_loop()
        channel.setblocking(False)
        self._loop.add_reader(channel.fileno(), self._readable)

    @property
    def open(self) -> bool:
        """Whether the far side is still there, as far as we know."""
        return self._open

    async def call(self, op: str, timeout: float, fds: Sequence[int] = (), blob: bytes = b"", **fields: Any) -> Message:
        """Send a request and await its reply; the reply's fds are the caller's.

        Raises what the far side raised, TimeoutError after `timeout` seconds, ShimLost when it is gone.
        """
        self._last_id += 1
        number = self._last_id
        return await self._await_reply(number, timeout, self._send({"id": number, "op": op, **fields}, fds, blob), op)

    async def expect(self, number: int, timeout: float, what: str) -> Message:
        """Await the reply to a request that the far side was born with."""
        return await self._await_reply(number, timeout, None, what)

    async def _await_reply(self, number: int, timeout: float, sending: Any, what: str) -> Message:
        future: asyncio.Future[Message] = self._loop.create_future()
        self._waiting[number] = future
        try:
            async with asyncio.timeout(timeout) as deadline:
                if sending is not None:
                    await sending
                return await future
        except TimeoutError as error:
            if not deadline.expired():
                raise  # it did answer: ETIMEDOUT is one of the kernel's errors
            raise TimeoutError(f"{self._far_side} did not answer {what!r} within {timeout:g} s") from error
        finally:
            del self._waiting[number]
            if isinstance(sys.exception(), asyncio.CancelledError | TimeoutError):
                _discard(future)

    async def _send(self, doc: dict[str, Any], fds: Sequence[int], blob: bytes) -> None:
        if not self._open:
            raise self._lost_error()
        async with self._sending:
            deadline = self._loop.time() + SEND_SECONDS
            while True:
                try:
                    return self._channel.send(doc, fds, blob)
                except BlockingIOError:
                    if self._loop.time() > deadline:
                        raise self._lost_error() from None
                    await asyncio.sleep(0.005)
                except OSError as error:
                    self._lose()
                    raise self._lost_error() from error

    def _readable(self) -> None:
        try:
            for _ in range(BATCH):
                message = self._channel.recv()
                if message is None:
                    return self._lose()
                self._dispatch(message)
                if not self._open:
                    return None
        except BlockingIOError:
            return None
        except (OSError, ProtocolError):
            self._lose()

    def _dispatch(self, message: Message) -> None:
        doc = message.doc
        if "event" in doc:
            close_all(message.fds)
            return self._on_event(doc)
        future = self._waiting.get(doc.get("re", -1))
        if future is None or future.done():
            close_all(message.fds)  # the caller gave up waiting
        elif "error" in doc:
            close_all(message.fds)
            future.set_exception(from_doc(doc["error"]))
        else:
            future.set_result(message)

    def _lost_error(self) -> ShimLost:
        return ShimLost(f"{self._far_side} is gone")

    def _lose(self) -> None:
        if self._open:
            self.close()
            self._on_lost()

    def close(self) -> None:
        """Disconnect; calls under way fail with ShimLost."""
        if not self._open:
            return
        self._open = False
        self._loop.remove_reader(self._channel.fileno())
        self._channel.close()
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(self._lost_error())


def _discard(future: asyncio.Future[Message]) -> None:
    """A reply that arrived while its caller was being cancelled still owns fds."""
    if future.done() and not future.cancelled() and future.exception() is None:
        close_all(future.result().fds)
