"""One plugin's socket: our calls to the plugin, and the plugin's calls to us, at the same time.

Anything that breaks the protocol ends the connection, and every call that waits on it with the reason. What a plugin
can make us hold is bounded: one incomplete message for each direction, SERVED_MAX calls of its own, one answer to each
call of ours.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, NamedTuple, TypeVar

from google.protobuf.message import DecodeError, Message

from cri.server.nri import mux, ttrpc
from cri.server.nri.errors import PluginLost, PluginRefused, PluginTimeout, ProtocolError

PACKAGE: Final = "nri.pkg.api.v1alpha1"
SERVED_MAX: Final = 16
ABANDONED_MAX: Final = 256

M = TypeVar("M", bound=Message)


class Served(NamedTuple):
    """One call that a plugin may make: its request's type, and who answers it."""

    request: type[Message]
    answer: Callable[[Message], Awaitable[Message]]


class Connection:
    """Speaks with one plugin from open() until close(), the plugin's end or its first mistake."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, served: Mapping[str, Served]
    ) -> None:
        """`served` is what the plugin can call, by the method's name."""
        self._reader, self._writer = reader, writer
        self._served = served
        self._decoders = {mux.PLUGIN: ttrpc.Decoder(), mux.RUNTIME: ttrpc.Decoder()}
        self._calls: dict[int, asyncio.Future[bytes]] = {}
        self._abandoned: set[int] = set()
        self._next, self._last_served = 1, 0
        self._tasks: set[asyncio.Task[None]] = set()
        #: Why it ended, once it has.
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def open(self) -> None:
        """Begin to read."""
        self._reading = asyncio.create_task(self._read())

    @property
    def pid(self) -> int:
        """The process at the other end (SO_PEERCRED, unix(7)); 0 when it is not known."""
        sock = self._writer.get_extra_info("socket")
        return int(struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]) if sock else 0

    async def call(self, method: str, request: Message, answer: type[M], timeout: float) -> M:
        """Call the plugin. Raises PluginRefused, PluginTimeout, PluginLost; the connection stays as it is."""
        if self.ended.done():
            raise PluginLost(self.ended.result())
        stream, self._next = self._next, self._next + 2
        frame = ttrpc.request(stream, f"{PACKAGE}.Plugin", method, request.SerializeToString(), timeout)
        future = self._calls[stream] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(timeout):
                await self._send(mux.PLUGIN, frame)
                return answer.FromString(await future)
        except TimeoutError:
            self._abandon(stream)
            raise PluginTimeout(f"no answer to {method} within {timeout:g} s") from None
        except DecodeError as error:
            raise ProtocolError(f"the answer to {method} is no {answer.__name__}: {error}") from error
        finally:
            self._calls.pop(stream, None)

    def _abandon(self, stream: int) -> None:
        """Nobody waits for this answer any more; it may still come, and is no lie then."""
        self._abandoned.add(stream)
        if len(self._abandoned) > ABANDONED_MAX:
            self._end(f"it owes {len(self._abandoned)} answers")

    async def _send(self, connection: int, frame: bytes) -> None:
        try:
            self._writer.write(mux.wrap(connection, frame))
            await self._writer.drain()
        except OSError as error:
            self._end(f"its connection broke: {error}")
            raise PluginLost(self.ended.result()) from error

    async def _read(self) -> None:
        try:
            while True:
                connection, payload = await mux.read_payload(self._reader)
                if connection not in self._decoders:
                    raise ProtocolError(f"a payload for connection {connection}, which NRI does not have")
                for frame in self._decoders[connection].feed(payload):
                    self._take(connection, frame)
        except ProtocolError as error:
            self._end(f"it broke the protocol: {error}")
        except EOFError:
            self._end("it closed its connection")
        except OSError as error:
            self._end(f"its connection broke: {error}")

    def _take(self, connection: int, frame: ttrpc.Frame) -> None:
        if connection == mux.PLUGIN and frame.kind == ttrpc.RESPONSE:
            self._answered(frame)
        elif connection == mux.RUNTIME and frame.kind == ttrpc.REQUEST:
            self._asked(frame)
        else:
            raise ProtocolError(f"a message of type {frame.kind} on connection {connection}")

    def _answered(self, frame: ttrpc.Frame) -> None:
        response = ttrpc.parse_response(frame)
        if frame.stream in self._abandoned:
            self._abandoned.discard(frame.stream)
            return
        future = self._calls.pop(frame.stream, None)
        if future is None:
            raise ProtocolError(f"an answer to call {frame.stream}, which nobody made")
        if future.done():
            return
        if response.status.code:
            future.set_exception(PluginRefused(response.status.code, response.status.message))
        else:
            future.set_result(response.payload)

    def _asked(self, frame: ttrpc.Frame) -> None:
        if frame.stream % 2 == 0 or frame.stream <= self._last_served:
            raise ProtocolError(f"a call with stream id {frame.stream} after {self._last_served}")
        self._last_served = frame.stream
        if len(self._tasks) >= 2 * SERVED_MAX:
            raise ProtocolError(f"{len(self._tasks)} calls at once, whose refusals it does not read")
        task = asyncio.create_task(self._serve(frame, refuse=len(self._tasks) >= SERVED_MAX))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, frame: ttrpc.Frame, *, refuse: bool) -> None:
        try:
            if refuse:
                answer = ttrpc.response(
                    frame.stream, b"", ttrpc.RESOURCE_EXHAUSTED, f"more than {SERVED_MAX} calls at once"
                )
            else:
                answer = await self._response(frame)
            with contextlib.suppress(PluginLost):  # whoever asked has gone
                await self._send(mux.RUNTIME, answer)
        except ProtocolError as error:
            self._end(f"it broke the protocol: {error}")

    async def _response(self, frame: ttrpc.Frame) -> bytes:
        call = ttrpc.parse_request(frame)
        served = self._served.get(call.method) if call.service == f"{PACKAGE}.Runtime" else None
        if served is None:
            what = f"no method {call.service[:80]}/{call.method[:80]} here"
            return ttrpc.response(frame.stream, b"", ttrpc.UNIMPLEMENTED, what)
        try:
            request = served.request.FromString(call.payload)
        except DecodeError as error:
            raise ProtocolError(f"the request of {call.method} is no {served.request.__name__}: {error}") from error
        try:
            answer = await served.answer(request)
        except PluginRefused as error:
            return ttrpc.response(frame.stream, b"", error.code, str(error))
        return ttrpc.response(frame.stream, answer.SerializeToString())

    def _end(self, why: str) -> None:
        """Close, and tell everybody who waits."""
        if self.ended.done():
            return
        self.ended.set_result(why)
        self._writer.transport.abort()
        for future in self._calls.values():
            if not future.done():
                future.set_exception(PluginLost(why))
                future.exception()  # whoever waits still gets it; nobody waiting is no error
        self._calls.clear()

    async def close(self, why: str) -> None:
        """End it for a reason of ours; returns when nothing of it runs any more."""
        self._end(why)
        ours = asyncio.current_task()
        running = [task for task in (self._reading, *self._tasks) if task is not ours]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
