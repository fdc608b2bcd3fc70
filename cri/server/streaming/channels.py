"""Kubernetes' channel protocols on WebSocket: the first byte of each message names the stream that the rest belongs to.

    channel.k8s.io            binary messages, first byte 0, 1, 2, ...
    base64.channel.k8s.io     text messages, first character '0', '1', ..., the rest base64
    v4. and v4.base64.        the same; the error channel carries a Status with the exit code
    v5.channel.k8s.io         besides, the message 255 N says that the client half-closes channel N

Source: KEP-4006 and the package documentation of k8s.io/streaming/pkg/httpstream/wsstream.
"""

from __future__ import annotations

import base64
from collections.abc import Collection, Sequence

from wsproto.frame_protocol import CloseReason

from cri.server.streaming.inbox import Inbox
from cri.server.streaming.websocket import Piece, WebSocket

CLOSE_SIGNAL = 255
MAX_WHOLE_MESSAGE = 1 << 20  # bytes of a message that has to be collected before it can be decoded (base64)


class Channels:
    """`readable` channels have inboxes; what comes on any other is dropped."""

    def __init__(self, websocket: WebSocket, protocol: str, readable: Collection[int]) -> None:
        self._websocket = websocket
        self._base64 = "base64." in protocol
        self._half_closes = protocol.startswith("v5.")
        self._inboxes = {channel: Inbox(websocket.peer_gone) for channel in readable}
        self._channel = -1  # of the message that is under way
        self._collected = bytearray()

    def inbox(self, channel: int) -> Inbox:
        return self._inboxes[channel]

    async def serve(self) -> None:
        """Read until the client closes or leaves."""
        try:
            async for piece in self._websocket.pieces():
                if self._base64 or self._is_signal(piece):
                    await self._collect(piece)
                else:
                    await self._pass_on(piece)
        except ValueError:
            await self._websocket.close(CloseReason.POLICY_VIOLATION)
        finally:
            for inbox in self._inboxes.values():
                inbox.end()

    async def send(self, channel: int, payload: bytes) -> None:
        if self._base64:
            await self._websocket.send(b"%c" % (ord("0") + channel) + base64.b64encode(payload), text=True)
        else:
            await self._websocket.send(bytes([channel]) + payload)

    def _is_signal(self, piece: Piece) -> bool:
        if piece.first and piece.data:
            return self._half_closes and piece.data[0] == CLOSE_SIGNAL
        return bool(self._collected)

    async def _pass_on(self, piece: Piece) -> None:
        data = piece.data
        if piece.first:
            self._channel = -1
        if self._channel < 0 and data:
            self._channel, data = data[0], data[1:]
        inbox = self._inboxes.get(self._channel)
        if inbox is not None:
            await inbox.put(data)

    async def _collect(self, piece: Piece) -> None:
        self._collected += piece.data
        if len(self._collected) > MAX_WHOLE_MESSAGE:
            raise ValueError("message too long")
        if not piece.last:
            return
        message = bytes(self._collected)
        self._collected.clear()
        if self._base64:
            await self._decoded(message)
        elif len(message) == 2:
            if inbox := self._inboxes.get(message[1]):
                inbox.end()
        else:
            raise ValueError("the close signal takes one channel")

    async def _decoded(self, message: bytes) -> None:
        inbox = self._inboxes.get(message[0] - ord("0")) if message else None
        if inbox is not None:
            await inbox.put(base64.b64decode(message[1:], validate=True))


class Channel:
    """One channel as something to read from and to write to. There is no half-close from the server's side."""

    def __init__(self, channels: Channels, number: int) -> None:
        self._channels = channels
        self._number = number

    async def read(self) -> bytes:
        return await self._channels.inbox(self._number).read()

    async def write(self, payload: bytes) -> None:
        await self._channels.send(self._number, payload)

    async def close(self) -> None:
        return

    def discard(self) -> None:
        self._channels.inbox(self._number).discard()


def choose(offered: Sequence[str], supported: Collection[str]) -> str | None:
    """The client's first choice that is supported; "" stands for the unnamed protocol of a client that offers none."""
    return next((protocol for protocol in offered or [""] if protocol in supported), None)
