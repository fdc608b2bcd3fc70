"""10,000 sessions that fail, in every phase: no file descriptor, task, thread, process or memory stays behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import resource
import threading
from urllib.parse import urlsplit

import pytest
from wsproto import events
from wsproto.utilities import LocalProtocolError

from cri.server.streaming.spdy import frames
from tests.support.processes import eventually
from tests.support.served_streams import Served
from tests.support.spdy_client import SpdyClient
from tests.support.websocket_client import WebSocketClient

V4, V5 = ["v4.channel.k8s.io"], ["v5.channel.k8s.io"]
SESSIONS = 10_000
AT_ONCE = 10


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


async def says(url: str, words: bytes, *, half_open: bool = False) -> None:
    """A TCP connection that says something and is gone; or that only stops talking, and is reset a little later."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    writer.write(words.replace(b"PATH", parts.path.encode()))
    if half_open:
        writer.write_eof()
        await reader.read(1)
    writer.transport.abort()
    await asyncio.sleep(0)


async def says_nothing(served: Served) -> None:
    await says(served.exec_url("true", stdout=True), b"")


async def stops_in_its_head(served: Served) -> None:
    await says(served.exec_url("true", stdout=True), b"POST PATH HTTP/1.1\r\nHost: x\r\nConn", half_open=True)


async def has_a_wrong_token(served: Served) -> None:
    await says(f"{served.server.base_url}/exec/{'x' * 22}", b"GET PATH HTTP/1.1\r\nHost: x\r\n\r\n", half_open=True)


async def asks_for_nothing(served: Served) -> None:
    await says(served.exec_url("true", stdout=True), b"POST PATH HTTP/1.1\r\nHost: x\r\n\r\n", half_open=True)


async def is_gone_when_it_is_answered(served: Served) -> None:
    upgrade = b"Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\n\r\n"
    await says(served.exec_url("true", stdout=True), b"POST PATH HTTP/1.1\r\nHost: x\r\n" + upgrade)


async def closes_with_a_code(served: Served) -> None:
    client = await WebSocketClient.connect(served.exec_url("/no/such/thing", stdout=True), V5)
    with contextlib.suppress(LocalProtocolError):  # the server was first
        await client.send(events.CloseConnection(code=random.choice([1000, 1001, 1002, 1011, 3000, 4999])))
    await client.close()


async def does_not_read(served: Served) -> None:
    client = await SpdyClient.connect(served.exec_url("/no/such/thing", stdout=True), V4)
    ids = [await client.open(streamType="error"), await client.open(streamType="stdout")]
    await client.send(frames.data(ids[0], b"x" * 5000))
    await client.close()


FAILING = [
    leaves_before_its_streams,
    cannot_start,
    leaves_at_once,
    breaks_the_protocol,
    never_comes,
    forwards_to_nowhere,
    says_nothing,
    stops_in_its_head,
    has_a_wrong_token,
    asks_for_nothing,
    is_gone_when_it_is_answered,
    closes_with_a_code,
    does_not_read,
]


@pytest.mark.parametrize("failing", FAILING)
async def test_failed_sessions_leave_nothing(served: Served, failing: object) -> None:
    async def rounds(number: int) -> None:
        for _ in range(number):
            await failing(served)  # type: ignore[operator]

    await rounds(50)
    await eventually(lambda: not served.server._tasks)
    before, memory = footprint(), resident()
    await asyncio.gather(*(rounds(SESSIONS // len(FAILING) // AT_ONCE) for _ in range(AT_ONCE)))
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
