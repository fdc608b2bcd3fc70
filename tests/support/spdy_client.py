"""A small SPDY/3.1 client for the tests of the streaming server: streams with ids, data, half-close, windows.

By default it behaves as Kubernetes clients do and sends no window updates; a test that wants a strict peer sends them
itself through `send`.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Sequence
from urllib.parse import urlsplit

from cri.server.streaming.spdy import frames
from cri.server.streaming.spdy.decoder import FrameDecoder
from cri.server.streaming.spdy.header_block import HeaderWriter


class Refused(Exception):
    """The server answered with something else than 101; `status` is what."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{status} {text}")
        self.status = status


class SpdyClient:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.received: dict[int, bytearray] = {}
        self.ended: set[int] = set()
        self.other: list[frames.Frame] = []
        self.protocol = ""
        self._decoder = FrameDecoder()
        self._headers = HeaderWriter()
        self._next_id = 1

    @classmethod
    async def connect(cls, url: str, protocols: Sequence[str], method: str = "POST") -> SpdyClient:
        parts = urlsplit(url)
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        lines = [f"{method} {parts.path} HTTP/1.1", f"Host: {parts.netloc}", "Connection: Upgrade", "Upgrade: SPDY/3.1"]
        lines += [f"X-Stream-Protocol-Version: {protocol}" for protocol in protocols]
        writer.write("\r\n".join([*lines, "Content-Length: 0", "", ""]).encode())
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
        except BaseException:
            writer.transport.abort()
            raise
        client = cls(reader, writer)
        status = int(head.split()[1])
        if status != 101:
            body = (await reader.read()).decode()
            writer.close()
            raise Refused(status, head + body)
        named = [line.split(": ")[1] for line in head.splitlines() if line.lower().startswith("x-stream-protocol")]
        client.protocol = named[0]
        return client

    async def open(self, **headers: str) -> int:
        """Opens a stream and waits for the reply; the stream's id."""
        stream_id, self._next_id = self._next_id, self._next_id + 2
        block = self.header_block(**headers)
        await self.send(frames.control(frames.SYN_STREAM, struct.pack("!IIBB", stream_id, 0, 0, 0) + block))
        self.received[stream_id] = bytearray()
        while not any(isinstance(frame, frames.SynReply | frames.Reset) for frame in self._about(stream_id)):
            if not await self.receive():
                raise ConnectionResetError("the server closed the connection")
        return stream_id

    def header_block(self, **headers: str) -> bytes:
        return self._headers.encode(headers)

    async def open_command(self, *kinds: str) -> dict[str, int]:
        return {kind: await self.open(streamType=kind) for kind in kinds}

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def data(self, stream_id: int, payload: bytes, *, fin: bool = False) -> None:
        await self.send(frames.data(stream_id, payload, fin=fin))

    async def until_end(self, stream_id: int) -> bytes:
        """Everything of the stream, up to the server's half-close or reset, or the connection's end."""
        while stream_id not in self.ended and await self.receive():
            pass
        return bytes(self.received[stream_id])

    async def until(self, stream_id: int, text: bytes) -> bytes:
        while text not in self.received[stream_id]:
            if not await self.receive():
                raise AssertionError(f"connection ended, {text!r} not in {bytes(self.received[stream_id])!r}")
        return bytes(self.received[stream_id])

    def was_reset(self, stream_id: int) -> bool:
        return any(isinstance(frame, frames.Reset) for frame in self._about(stream_id))

    async def close(self) -> None:
        self.writer.transport.abort()
        await asyncio.sleep(0)

    async def chunk(self) -> bytes:
        return await self.reader.read(1 << 16)

    def _about(self, stream_id: int) -> list[frames.Frame]:
        return [frame for frame in self.other if getattr(frame, "stream_id", None) == stream_id]

    async def receive(self) -> bool:
        """Takes what has come; False at the end of the connection."""
        chunk = await self.chunk()
        for frame in self._decoder.feed(chunk):
            if isinstance(frame, frames.Data):
                self.received[frame.stream_id] += frame.payload
                if frame.fin:
                    self.ended.add(frame.stream_id)
            else:
                self.other.append(frame)
                if isinstance(frame, frames.Reset):
                    self.ended.add(frame.stream_id)
        return bool(chunk)
