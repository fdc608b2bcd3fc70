"""Port-forward: many connections on one session, half-close, refusal, and each of the three ways to carry it."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator

import pytest
from wsproto import events

from cri.server.streaming import inbox, over_spdy
from tests.support.processes import eventually
from tests.support.served_streams import Served
from tests.support.spdy_client import Refused, SpdyClient
from tests.support.websocket_client import WebSocketClient

PROTOCOL = ["portforward.k8s.io"]


@pytest.fixture
async def echo() -> AsyncIterator[int]:
    """A port that sends back what it gets, and ends when its client's side has ended."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while chunk := await reader.read(1 << 16):
            writer.write(chunk)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()


def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def pair(client: SpdyClient, port: int, request_id: str) -> tuple[int, int]:
    error = await client.open(streamType="error", port=str(port), requestID=request_id)
    await client.data(error, b"", fin=True)
    return await client.open(streamType="data", port=str(port), requestID=request_id), error


async def test_connections_beside_each_other(served: Served, echo: int) -> None:
    client = await SpdyClient.connect(served.forward_url(), PROTOCOL)
    pairs = [await pair(client, echo, str(number)) for number in range(10)]
    payloads = [os.urandom(50_000) for _ in pairs]
    for (data, _), payload in zip(pairs, payloads, strict=True):
        await client.data(data, payload, fin=True)
    for (data, error), payload in zip(pairs, payloads, strict=True):
        assert await client.until_end(data) == payload
        assert await client.until_end(error) == b""
    await client.close()


async def test_a_port_where_nobody_listens(served: Served, echo: int) -> None:
    client = await SpdyClient.connect(served.forward_url(), PROTOCOL)
    closed = unused_port()
    data, error = await pair(client, closed, "0")
    message = await client.until_end(error)
    assert message.startswith(f"error forwarding port {closed} to pod p1: ".encode())
    assert b"refused" in message
    assert await client.until_end(data) == b""
    data, _ = await pair(client, echo, "1")  # the session goes on
    await client.data(data, b"still here", fin=True)
    assert await client.until_end(data) == b"still here"
    await client.close()


async def test_a_connection_that_breaks_is_no_error_of_the_session(served: Served) -> None:
    async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        writer.close()

    server = await asyncio.start_server(reset, "127.0.0.1", 0)
    client = await SpdyClient.connect(served.forward_url(), PROTOCOL)
    data, error = await pair(client, server.sockets[0].getsockname()[1], "0")
    await client.data(data, b"x")
    assert await client.until_end(data) == b""
    assert await client.until_end(error) == b""
    server.close()
    await client.close()


async def test_clients_without_request_ids(served: Served, echo: int) -> None:
    client = await SpdyClient.connect(served.forward_url(), PROTOCOL)
    await client.open(streamType="error", port=str(echo))
    data = await client.open(streamType="data", port=str(echo))
    await client.data(data, b"old", fin=True)
    assert await client.until_end(data) == b"old"
    await client.close()


@pytest.mark.parametrize("port", ["0", "65536", "-1", "http", "", "٣", "9" * 100])
async def test_ports_that_are_none(served: Served, port: str) -> None:
    client = await SpdyClient.connect(served.forward_url(), PROTOCOL)
    assert client.was_reset(await client.open(streamType="data", port=port, requestID="0"))
    await client.close()


async def test_half_a_pair_is_reset_in_time(served: Served, echo: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(over_spdy, "CREATION_TIMEOUT", 0.1)
    client = await SpdyClient.connect(served.forward_url(), PROTOCOL)
    alone = await client.open(streamType="data", port=str(echo), requestID="0")
    await client.until_end(alone)
    assert client.was_reset(alone)
    await client.close()


async def test_a_client_that_leaves_ends_its_connections(served: Served, echo: int) -> None:
    before = len(os.listdir("/proc/self/fd"))
    client = await SpdyClient.connect(served.forward_url(), PROTOCOL)
    for number in range(20):
        await pair(client, echo, str(number))
    await client.close()
    await eventually(lambda: len(os.listdir("/proc/self/fd")) <= before)


async def test_a_pod_that_does_not_read_does_not_keep_a_session_whose_client_left(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(inbox, "PEER_CHECK", 0.2)
    holding: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(lambda reader, writer: holding.append(writer), "127.0.0.1", 0, limit=1)
    client = await SpdyClient.connect(served.forward_url(), PROTOCOL)
    data, _ = await pair(client, server.sockets[0].getsockname()[1], "0")
    with pytest.raises(TimeoutError):
        for _ in range(10_000):
            async with asyncio.timeout(0.3):
                await client.data(data, bytes(1 << 16))
    await client.close()
    await eventually(lambda: len(os.listdir("/proc/self/fd")) <= before + 2)  # the listener and its connection
    for writer in holding:
        writer.transport.abort()
    server.close()


async def test_spdy_inside_of_a_websocket(served: Served, echo: int) -> None:
    client = await TunnelClient.open_tunnel(served.forward_url())
    data, error = await pair(client, echo, "0")
    payload = os.urandom(300_000)
    await client.data(data, payload, fin=True)
    assert await client.until_end(data) == payload
    assert await client.until_end(error) == b""
    await client.close()


async def test_channels_of_a_websocket(served: Served, echo: int) -> None:
    closed = unused_port()
    client = await WebSocketClient.connect(served.forward_url(echo, closed), ["v4.channel.k8s.io"])
    await client.until(3, b"refused")
    assert client.received(0)[:2] == client.received(1)[:2] == echo.to_bytes(2, "little")
    assert client.received(2)[:2] == client.received(3)[:2] == closed.to_bytes(2, "little")
    await client.on(0, b"hello")
    await client.until(0, b"hello")
    await client.send(events.CloseConnection(code=1000))
    await client.until_close()
    await client.close()


async def test_versions_that_nobody_speaks(served: Served) -> None:
    with pytest.raises(Refused) as refused:
        await SpdyClient.connect(served.forward_url(), ["v4.channel.k8s.io"])
    assert refused.value.status == 403
    assert "portforward.k8s.io" in str(refused.value)


class TunnelClient(SpdyClient):
    """SPDY frames in the messages of a WebSocket."""

    socket: WebSocketClient

    @classmethod
    async def open_tunnel(cls, url: str) -> TunnelClient:
        socket = await WebSocketClient.connect(url, ["SPDY/3.1+portforward.k8s.io"])
        client = cls(socket.reader, socket.writer)
        client.socket = socket
        assert socket.protocol == "SPDY/3.1+portforward.k8s.io"
        return client

    async def send(self, data: bytes) -> None:
        await self.socket.send(events.BytesMessage(data))

    async def chunk(self) -> bytes:
        while not self.socket.messages:
            if not await self.socket.receive():
                return b""
        return self.socket.messages.pop(0)
