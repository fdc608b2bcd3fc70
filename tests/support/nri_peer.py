"""The plugin's end of an NRI connection, in the test's own hands: it can say anything, true or not."""

from __future__ import annotations

import asyncio
import struct
from pathlib import Path
from typing import Self

from google.protobuf.message import Message

from cri.proto import nri_pb2 as nri
from cri.proto import ttrpc_pb2
from cri.server.nri import mux, ttrpc

SECONDS = 10.0
SERVICE = "nri.pkg.api.v1alpha1.Runtime"


class NriPeer:
    """Connects; nothing happens by itself."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._decoders = {mux.PLUGIN: ttrpc.Decoder(), mux.RUNTIME: ttrpc.Decoder()}
        self._frames: list[tuple[int, ttrpc.Frame]] = []

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_unix_connection(self._socket)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.transport.abort()

    async def send(self, data: bytes) -> None:
        """Any bytes."""
        self._writer.write(data)
        await self._writer.drain()

    async def frame(self) -> tuple[int, ttrpc.Frame]:
        """The next frame from crid, and its connection; raises EOFError when crid has closed."""
        async with asyncio.timeout(SECONDS):
            while not self._frames:
                connection, payload = await mux.read_payload(self._reader)
                self._frames += [(connection, frame) for frame in self._decoders[connection].feed(payload)]
        return self._frames.pop(0)

    async def closed(self) -> None:
        """Wait until crid has closed the connection; what it still says is dropped."""
        try:
            while True:
                await self.frame()
        except (EOFError, ConnectionError):
            return

    async def ask(self, method: str, request: Message, stream: int = 1) -> ttrpc_pb2.Response:
        """Call crid and take its answer."""
        await self.send(mux.wrap(mux.RUNTIME, ttrpc.request(stream, SERVICE, method, request.SerializeToString(), 5)))
        _, frame = await self.frame()
        return ttrpc.parse_response(frame)

    async def register(self, index: str = "66", name: str = "liar") -> ttrpc_pb2.Response:
        return await self.ask("RegisterPlugin", nri.RegisterPluginRequest(plugin_name=name, plugin_idx=index))

    async def answer(self, message: Message) -> ttrpc_pb2.Request:
        """Take crid's next call and answer it with `message`: the call."""
        connection, frame = await self.frame()
        assert connection == mux.PLUGIN
        await self.send(mux.wrap(mux.PLUGIN, ttrpc.response(frame.stream, message.SerializeToString())))
        return ttrpc.parse_request(frame)

    async def join(self, events: int = 0) -> None:
        """Register, be configured and synchronized."""
        assert not (await self.register()).status.code
        assert (await self.answer(nri.ConfigureResponse(events=events))).method == "Configure"
        assert (await self.answer(nri.SynchronizeResponse())).method == "Synchronize"


def payload(connection: int, data: bytes) -> bytes:
    """A payload of the multiplexer that need not be what mux.wrap() would make."""
    return struct.pack(">II", connection, len(data)) + data


def message(length: int, stream: int, kind: int, data: bytes) -> bytes:
    """A ttrpc frame whose header need not be true."""
    return struct.pack(">IIBB", length, stream, kind, 0) + data
