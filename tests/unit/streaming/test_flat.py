"""Sessions that fail, by the thousand: no file descriptor, task, thread, process or memory stays behind."""

from __future__ import annotations

import asyncio
import os
import resource
import threading

import pytest
from wsproto import events

from tests.support.served_streams import Served, eventually
from tests.support.spdy_client import SpdyClient
from tests.support.websocket_client import WebSocketClient

V4, V5 = ["v4.channel.k8s.io"], ["v5.channel.k8s.io"]
ROUNDS = 1000


def footprint() -> tuple[int, int, int]:
    return len(os.listdir("/proc/self/fd")), len(asyncio.all_tasks()), threading.active_count()


def resident() -> int:
    """Bytes."""
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize()


async def leaves_before_its_streams(served: Served) -> None:
    client = await SpdyClient.connect(served.exec_url("cat", stdin=True, stdout=True), V4)
    await client.open(streamType="error")
    await client.close()


async def cannot_start(served: Served) -> None:
    client = await SpdyClient.connect(served.exec_url("/no/such/thing", stdout=True, tty=True), V4)
    ids = await client.open_command("error", "stdout", "resize")
    await client.data(ids["resize"], b'{"Width":80,"Height":24}')
    await client.until_end(ids["error"])
    await client.close()


async def leaves_at_once(served: Served) -> None:
    client = await WebSocketClient.connect(served.exec_url("/no/such/thing", stdout=True), V5)
    await client.close()


async def breaks_the_protocol(served: Served) -> None:
    client = await SpdyClient.connect(served.forward_url(), ["portforward.k8s.io"])
    await client.send(b"\x80\x09 this is no frame")
    await client.close()


async def never_comes(served: Served) -> None:
    served.server._tokens.redeem(served.attach_url(stdout=True).rpartition("/")[2])


async def forwards_to_nowhere(served: Served) -> None:
    client = await WebSocketClient.connect(served.forward_url(1), ["v4.channel.k8s.io"])
    await client.send(events.BytesMessage(b"\x00data"))
    await client.close()


@pytest.mark.parametrize(
    "failing",
    [leaves_before_its_streams, cannot_start, leaves_at_once, breaks_the_protocol, never_comes, forwards_to_nowhere],
)
async def test_failed_sessions_leave_nothing(served: Served, failing: object) -> None:
    async def rounds(number: int) -> None:
        for _ in range(number):
            await failing(served)  # type: ignore[operator]

    await rounds(50)
    await eventually(lambda: not served.server._tasks)
    before, memory = footprint(), resident()
    await asyncio.gather(*(rounds(ROUNDS // 10) for _ in range(10)))
    await eventually(lambda: not served.server._tasks)
    await eventually(lambda: footprint() <= before)
    assert resident() - memory < 16 << 20


@pytest.mark.parametrize("tty", [False, True])
async def test_killed_sessions_leave_nothing(served: Served, tty: bool) -> None:
    async def one() -> None:
        client = await SpdyClient.connect(served.exec_url("cat", stdin=True, stdout=True, tty=tty), V4)
        ids = await client.open_command("error", "stdin", "stdout", *(["resize"] if tty else []))
        await client.data(ids["stdin"], b"x\n")
        await client.until(ids["stdout"], b"x")
        await client.close()

    await one()
    await eventually(lambda: not served.server._tasks)
    before = footprint()
    for _ in range(20):
        await asyncio.gather(*(one() for _ in range(5)))
    await eventually(lambda: not served.server._tasks)
    await eventually(lambda: footprint() <= before)
    assert served.runtime.all_closed
