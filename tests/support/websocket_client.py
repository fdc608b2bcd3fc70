"""A WebSocket client for the tests of the streaming server: raw messages, so that wrong ones can be sent too."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from wsproto import ConnectionType, WSConnection, events
from wsproto.connection import ConnectionState


class Rejected(Exception):
    """The server answered with something else than 101; `status` is what."""

    def __init__(self, status: int) -> None:
        super().__init__(str(status))
        self.status = status


class WebSocketClient:
    """`received` holds what came on each channel (binary protocols), `texts` and `messages` everything as it came."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.websocket = WSConnection(ConnectionType.CLIENT)
        self.protocol: str | None = None
        self.messages: list[bytes] = []
        self.texts: list[str] = []
        self.pongs = 0
        self.close_code: int | None = None
        self._partial: bytes = b""

    @classmethod
    async def connect(
        cls, url: str, protocols: Sequence[str] = (), tls: ssl.SSLContext | None = None
    ) -> WebSocketClient:
        parts = urlsplit(url)
        client = cls(*await asyncio.open_connection(parts.hostname, parts.port, ssl=tls))
        try:
            await client.send(events.Request(host=parts.netloc, target=parts.path, subprotocols=list(protocols)))
            while client.protocol is None:
                if not await client.receive():
                    raise Rejected(0)
        except BaseException:
            client.writer.transport.abort()
            raise
        return client

    async def send(self, event: events.Event) -> None:
        self.writer.write(self.websocket.send(event))
        await self.writer.drain()

    async def on(self, channel: int, payload: bytes) -> None:
        await self.send(events.BytesMessage(bytes([channel]) + payload))

    def received(self, channel: int) -> bytes:
        return b"".join(message[1:] for message in self.messages if message[:1] == bytes([channel]))

    async def until(self, channel: int, text: bytes) -> bytes:
        while text not in self.received(channel):
            if not await self.receive():
                raise AssertionError(f"connection ended, {text!r} not in {self.received(channel)!r}")
        return self.received(channel)

    async def until_close(self) -> int:
        """Takes everything up to the server's close; its code. Answers the close as a client has to."""
        while self.close_code is None and await self.receive():
            pass
        return self.close_code or 0

    async def receive(self) -> bool:
        """Takes what has come; False at the end of the connection."""
        chunk = await self.reader.read(1 << 16)
        if chunk:
            self.websocket.receive_data(chunk)
            for event in self.websocket.events():
                await self._take(event)
        return bool(chunk)

    async def close(self) -> None:
        self.writer.transport.abort()
        await asyncio.sleep(0)

    async def _take(self, event: Any) -> None:
        match event:
            case events.AcceptConnection():
                self.protocol = event.subprotocol or ""
            case events.RejectConnection():
                await self.close()
                raise Rejected(event.status_code)
            case events.BytesMessage():
                self._partial += event.data
                if event.message_finished:
                    self.messages.append(self._partial)
                    self._partial = b""
            case events.TextMessage():
                self.texts.append(event.data)
            case events.Ping():
                await self.send(event.response())
            case events.Pong():
                self.pongs += 1
            case events.CloseConnection():
                self.close_code = event.code
                if self.websocket.state is ConnectionState.REMOTE_CLOSING:
                    await self.send(event.response())
