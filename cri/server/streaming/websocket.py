"""WebSocket on an accepted connection: messages in pieces, ping and pong, close. The protocol itself is wsproto's.

No extensions are agreed on, compression least of all: a small frame must not become a large one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from wsproto import ConnectionType, WSConnection, events
from wsproto.frame_protocol import CloseReason
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

from cri.server.streaming.wire import Wire


class HandshakeError(Exception):
    """The request is no WebSocket handshake that can be accepted."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a message as it came from the network; `first` and `last` mark the message's ends."""

    data: bytes
    first: bool
    last: bool


class WebSocket:
    """Server side. Made from the request's headers; nothing is sent before `accept`."""

    def __init__(self, wire: Wire, target: bytes, headers: list[tuple[bytes, bytes]]) -> None:
        self._wire = wire
        self._protocol = WSConnection(ConnectionType.SERVER)
        self._inside_message = False
        try:
            self._protocol.initiate_upgrade_connection(headers, target)
            request = next(iter(self._protocol.events()))
        except (RemoteProtocolError, StopIteration, UnicodeError) as error:
            raise HandshakeError(f"not a WebSocket handshake: {error}") from error
        #: Subprotocols in the client's order of preference.
        self.offered: list[str] = list(getattr(request, "subprotocols", []))
        self.connection_gone = wire.peer_gone

    async def accept(self, subprotocol: str | None) -> None:
        await self._send(events.AcceptConnection(subprotocol=subprotocol))

    async def pieces(self) -> AsyncIterator[Piece]:
        """What the client sends, until it closes or leaves. Pings are answered meanwhile."""
        while chunk := await self._wire.read():
            try:
                self._protocol.receive_data(chunk)
                received = list(self._protocol.events())
            except (RemoteProtocolError, LocalProtocolError):
                await self.close(CloseReason.PROTOCOL_ERROR)
                return
            for event in received:
                if isinstance(event, events.CloseConnection):
                    await self._answer(event.response())
                    return
                if isinstance(event, events.Ping):
                    await self._answer(event.response())
                elif isinstance(event, events.BytesMessage | events.TextMessage):
                    yield self._piece(event)

    async def send(self, payload: bytes, *, text: bool = False) -> None:
        """One message. Raises ConnectionError when the client is gone."""
        message: Any = events.TextMessage(payload.decode()) if text else events.BytesMessage(payload)
        await self._send(message)

    async def peer_gone(self) -> bool:
        """Send a ping, and tell whether the client was gone before."""
        await self._send(events.Ping())
        return self.connection_gone()

    async def close(self, reason: CloseReason = CloseReason.NORMAL_CLOSURE) -> None:
        """Start the closing handshake; nothing can be sent afterwards. Idempotent."""
        await self._answer(events.CloseConnection(code=reason))

    async def _answer(self, event: events.Event) -> None:
        """For what may come too late: an answer to a client that has closed already."""
        try:
            await self._send(event)
        except BrokenPipeError:
            return

    async def _send(self, event: events.Event) -> None:
        try:
            data = self._protocol.send(event)
        except LocalProtocolError as error:
            raise BrokenPipeError(f"the WebSocket is closed: {error}") from error
        await self._wire.write(data)

    def _piece(self, event: events.BytesMessage | events.TextMessage) -> Piece:
        data = event.data if isinstance(event.data, bytes | bytearray) else event.data.encode()
        first = not self._inside_message
        self._inside_message = not event.message_finished
        return Piece(bytes(data), first, event.message_finished)


class Tunnel:
    """A WebSocket whose binary messages are a byte stream: how newer clients carry SPDY."""

    def __init__(self, websocket: WebSocket) -> None:
        self._websocket = websocket
        self._pieces = websocket.pieces()
        self.peer_gone = websocket.connection_gone

    async def read(self) -> bytes:
        async for piece in self._pieces:
            if piece.data:
                return piece.data
        return b""

    async def write(self, data: bytes) -> None:
        await self._websocket.send(data)
