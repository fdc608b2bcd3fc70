"""Flow control of SPDY: exact with peers that keep windows, absent with those that do not."""

from __future__ import annotations

import asyncio
import struct

import pytest

from cri.server.streaming.spdy import frames
from cri.server.streaming.spdy.stream import INITIAL_WINDOW
from tests.support.served_streams import Served
from tests.support.spdy_client import SpdyClient

V4 = ["v4.channel.k8s.io"]


async def zeroes(served: Served, size: int) -> tuple[SpdyClient, dict[str, int]]:
    """A command that waits for a line and then writes `size` bytes."""
    command = ("sh", "-c", f"read x; head -c {size} /dev/zero")
    client = await SpdyClient.connect(served.exec_url(*command, stdin=True, stdout=True), V4)
    return client, await client.open_command("error", "stdin", "stdout")


def initial_window(size: int) -> bytes:
    return frames.control(frames.SETTINGS, struct.pack("!III", 1, frames.SETTINGS_INITIAL_WINDOW_SIZE, size))


async def all_that_comes(client: SpdyClient, stream_id: int) -> int:
    try:
        async with asyncio.timeout(0.3):
            await client.until_end(stream_id)
    except TimeoutError:
        pass
    return len(client.received[stream_id])


async def test_a_peer_without_windows_gets_everything(served: Served) -> None:
    client, ids = await zeroes(served, 1_000_000)
    await client.data(ids["stdin"], b"\n")
    assert len(await client.until_end(ids["stdout"])) == 1_000_000
    await client.close()


async def test_a_strict_peer_gets_what_it_allows(served: Served) -> None:
    client, ids = await zeroes(served, 300_000)
    await client.send(initial_window(1000))
    await client.data(ids["stdin"], b"\n")
    assert await all_that_comes(client, ids["stdout"]) == 1000
    await client.send(frames.window_update(ids["stdout"], 50_000))
    assert await all_that_comes(client, ids["stdout"]) == 51_000
    await client.send(frames.window_update(ids["stdout"], 300_000))
    assert await all_that_comes(client, ids["stdout"]) == 300_000
    await client.close()


async def test_the_connections_own_window_counts_too(served: Served) -> None:
    client, ids = await zeroes(served, 200_000)
    await client.send(frames.window_update(0, 1000) + frames.window_update(ids["stdout"], 1 << 20))
    await client.data(ids["stdin"], b"\n")
    assert await all_that_comes(client, ids["stdout"]) == INITIAL_WINDOW + 1000
    await client.send(frames.window_update(0, 1 << 20))
    assert await all_that_comes(client, ids["stdout"]) == 200_000
    await client.close()


async def test_a_window_that_shrinks_below_nothing(served: Served) -> None:
    client, ids = await zeroes(served, 100_000)
    await client.send(initial_window(2000))
    await client.data(ids["stdin"], b"\n")
    assert await all_that_comes(client, ids["stdout"]) == 2000
    await client.send(initial_window(0))
    await client.send(frames.window_update(ids["stdout"], 1500))
    assert await all_that_comes(client, ids["stdout"]) == 2000
    await client.send(frames.window_update(ids["stdout"], 700))
    assert await all_that_comes(client, ids["stdout"]) == 2200
    await client.close()


async def test_what_is_taken_is_granted_again(served: Served) -> None:
    client = await SpdyClient.connect(served.exec_url("cat", stdin=True, stdout=True), V4)
    ids = await client.open_command("error", "stdin", "stdout")
    sent = 10 * INITIAL_WINDOW
    for _ in range(10):
        await client.data(ids["stdin"], bytes(INITIAL_WINDOW))
    await client.until(ids["stdout"], bytes(sent))
    granted = [frame for frame in client.other if isinstance(frame, frames.WindowUpdate)]
    for stream_id in (ids["stdin"], 0):
        total = sum(frame.delta for frame in granted if frame.stream_id == stream_id)
        assert sent - INITIAL_WINDOW // 2 <= total <= sent
    await client.close()


async def test_a_reset_wakes_a_writer_without_room(served: Served) -> None:
    client, ids = await zeroes(served, 100_000)
    await client.send(initial_window(0))
    await client.data(ids["stdin"], b"\n")
    assert await all_that_comes(client, ids["stdout"]) == 0
    await client.send(frames.reset(ids["stdout"], frames.RST_CANCEL))
    await client.send(initial_window(1 << 16))
    assert b"Success" in await client.until_end(ids["error"])
    await client.close()


@pytest.mark.parametrize("bad_id", [1, 2, 0])
async def test_stream_ids_only_grow_and_are_odd(served: Served, bad_id: int) -> None:
    client, ids = await zeroes(served, 1)
    block = client.header_block(streamType="error")
    await client.send(frames.control(frames.SYN_STREAM, struct.pack("!IIBB", bad_id, 0, 0, 0) + block))
    while await client.receive():
        pass
    farewell = [frame for frame in client.other if isinstance(frame, frames.GoAway)]
    assert farewell == [frames.GoAway(max(ids.values()), frames.GOAWAY_PROTOCOL_ERROR)]
    await client.close()


async def test_pings_come_back_and_answers_are_not_answered(served: Served) -> None:
    client, _ = await zeroes(served, 1)
    await client.send(frames.ping(2) + frames.ping(5))
    while not any(isinstance(frame, frames.Ping) for frame in client.other):
        assert await client.receive()
    assert [frame for frame in client.other if isinstance(frame, frames.Ping)] == [frames.Ping(5)]
    await client.close()
