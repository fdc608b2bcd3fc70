"""The client's end of Exec and Attach: joins local file descriptors to the URL that a CRI runtime gave out.

    url = (await cri.Exec(container_id=cid, cmd=["sh"], stdin=True, stdout=True, tty=True)).url
    code = await exec_session(url, stdin=0, stdout=1, stderr=2, sizes=terminal_sizes())

Works with any runtime that speaks the WebSocket channel protocols. v5 is asked for first; v4, which many runtimes have
alone, cannot tell the other side that stdin has ended, so there a command that reads to the end does not end.
Source of the protocols: KEP-4006.
"""

from __future__ import annotations

import asyncio
import json
import os
import ssl
from collections import deque
from collections.abc import AsyncIterator, Coroutine
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from wsproto import ConnectionType, WSConnection, events
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

PROTOCOLS = ["v5.channel.k8s.io", "v4.channel.k8s.io"]
CONNECT_TIMEOUT = 10.0  # seconds until the runtime has accepted the session
CHUNK = 32 << 10  # bytes read or sent at a time
MAX_STATUS = 64 << 10  # bytes of the final status

_STDIN, _STDOUT, _STDERR, _ERROR, _RESIZE = range(5)
_CLOSE_SIGNAL = 255


class StreamFailed(Exception):
    """The session could not be made, or ended without an exit code; the message is the runtime's, where it has one."""


class _NobodyListens(Exception):
    """The runtime takes nothing any more."""


async def exec_session(
    url: str,
    *,
    stdin: int | None,
    stdout: int,
    stderr: int,
    sizes: AsyncIterator[tuple[int, int]] | None = None,
) -> int:
    """Run the session to its end: the command's exit code (0 for an attachment that ended).

    `stdin`, `stdout`, `stderr` are descriptors that stay open and blocking as they are; `sizes` yields the terminal's
    (rows, columns), first its present size. Raises StreamFailed, OSError of the descriptors or the connection.
    """
    socket = await _ClientSocket.connect(url)
    receiver = asyncio.create_task(_receive(socket, {_STDOUT: stdout, _STDERR: stderr}))
    tasks: set[asyncio.Task[Any]] = {receiver}
    if stdin is not None:
        tasks.add(asyncio.create_task(_feed(_send_stdin(socket, stdin))))
    if sizes is not None:
        tasks.add(asyncio.create_task(_feed(_send_sizes(socket, sizes))))
    try:
        await _end(receiver, tasks)
        return await receiver
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await socket.close()


async def _end(receiver: asyncio.Task[int], tasks: set[asyncio.Task[Any]]) -> None:
    """Until the receiver is done; raises what goes wrong on our own side meanwhile: the command would wait for ever."""
    waiting = tasks
    while receiver in waiting:
        done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        if receiver not in done:
            await asyncio.gather(*done)


async def _feed(feeder: Coroutine[Any, Any, None]) -> None:
    with suppress(_NobodyListens):  # the receiver is about to hear why
        await feeder


async def _receive(socket: _ClientSocket, outputs: dict[int, int]) -> int:
    status = bytearray()
    async for channel, data in socket.messages():
        if channel in outputs:
            await asyncio.to_thread(_write_all, outputs[channel], data)
        elif channel == _ERROR:
            status += data[: MAX_STATUS - len(status)]
    return exit_code_of(bytes(status))


def exit_code_of(status: bytes) -> int:
    """The exit code in a v4 or v5 status. Raises StreamFailed when the status tells of another failure, or is none."""
    try:
        fields = json.loads(status) if status else {}
        if fields.get("status") == "Success":
            return 0
        if fields.get("reason") == "NonZeroExitCode":
            causes = {cause.get("reason"): cause.get("message") for cause in fields["details"]["causes"]}
            return int(causes["ExitCode"])
        message = str(fields.get("message", ""))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise StreamFailed(f"the runtime sent a status that cannot be read: {status[:200]!r}") from error
    raise StreamFailed(message or "the connection ended before the command did")


async def _send_stdin(socket: _ClientSocket, descriptor: int) -> None:
    while chunk := await _read(descriptor):
        await socket.send(bytes([_STDIN]) + chunk)
    if socket.protocol == PROTOCOLS[0]:
        await socket.send(bytes([_CLOSE_SIGNAL, _STDIN]))


async def _send_sizes(socket: _ClientSocket, sizes: AsyncIterator[tuple[int, int]]) -> None:
    async for rows, columns in sizes:
        size = json.dumps({"Width": columns, "Height": rows}).encode()
        await socket.send(bytes([_RESIZE]) + size)


async def _read(descriptor: int) -> bytes:
    """Wait in the event loop and not in the read, so that it can be cancelled; what never waits is just read."""
    readable = asyncio.Event()
    loop = asyncio.get_running_loop()
    # Regular files and devices such as /dev/null are always ready, which epoll_ctl(2) says with EPERM.
    with suppress(PermissionError):
        loop.add_reader(descriptor, readable.set)
        try:
            await readable.wait()
        finally:
            loop.remove_reader(descriptor)
    return os.read(descriptor, CHUNK)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


class _ClientSocket:
    """A WebSocket to the runtime; a message is one byte of channel and its data."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._websocket = WSConnection(ConnectionType.CLIENT)
        self._pending: deque[events.Event] = deque()
        self.protocol = ""

    @classmethod
    async def connect(cls, url: str) -> _ClientSocket:
        """Raises StreamFailed, OSError."""
        parts = urlsplit(url)
        secure = parts.scheme == "https"
        host, port = parts.hostname or "", parts.port or (443 if secure else 80)
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                context = ssl.create_default_context() if secure else None
                socket = cls(*await asyncio.open_connection(host, port, ssl=context, limit=CHUNK))
                try:
                    await socket._shake_hands(parts.netloc, parts.path + (f"?{parts.query}" if parts.query else ""))
                except BaseException:
                    await socket.close()
                    raise
        except TimeoutError as late:
            raise StreamFailed(f"{host}:{port} did not accept the session in {CONNECT_TIMEOUT:.0f} s") from late
        return socket

    async def _shake_hands(self, host: str, target: str) -> None:
        await self._send(events.Request(host=host, target=target, subprotocols=PROTOCOLS))
        refusal = bytearray()
        async for event in self._events():
            if isinstance(event, events.AcceptConnection):
                self.protocol = event.subprotocol or ""
                return
            if isinstance(event, events.RejectData):
                refusal += event.data[: MAX_STATUS - len(refusal)]
                if event.body_finished:
                    break
        reason = refusal.decode("utf-8", "replace").strip() or "it closed the connection"
        raise StreamFailed(f"{host} refused the session: {reason}")

    async def messages(self) -> AsyncIterator[tuple[int, bytes]]:
        """Channel and data, also of messages that arrive in pieces, until the runtime closes."""
        channel = -1
        async for event in self._events():
            if isinstance(event, events.CloseConnection):
                return
            if isinstance(event, events.Ping):
                await self._send(event.response())
            elif isinstance(event, events.BytesMessage):
                data = bytes(event.data)
                if channel < 0 and data:
                    channel, data = data[0], data[1:]
                if data:
                    yield channel, data
                if event.message_finished:
                    channel = -1

    async def send(self, message: bytes) -> None:
        """Raises _NobodyListens."""
        try:
            await self._send(events.BytesMessage(message))
        except (LocalProtocolError, OSError) as error:
            raise _NobodyListens from error

    async def close(self) -> None:
        with suppress(LocalProtocolError, OSError):
            await self._send(events.CloseConnection(code=1000))
        self._writer.close()
        with suppress(OSError):
            await self._writer.wait_closed()

    async def _events(self) -> AsyncIterator[events.Event]:
        """Raises StreamFailed when the runtime does not speak the protocol."""
        while True:
            while self._pending:
                yield self._pending.popleft()
            chunk = await self._reader.read(CHUNK)
            if not chunk:
                return
            try:
                self._websocket.receive_data(chunk)
                self._pending.extend(self._websocket.events())
            except RemoteProtocolError as error:
                raise StreamFailed(f"the runtime broke the WebSocket protocol: {error}") from error

    async def _send(self, event: events.Event) -> None:
        self._writer.write(self._websocket.send(event))
        await self._writer.drain()
