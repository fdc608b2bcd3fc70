"""Exec and attach over WebSocket: every channel protocol, half-close, terminals, and messages that are not allowed."""

from __future__ import annotations

import asyncio
import base64
import json
import os

import pytest
from wsproto import events

from tests.support.processes import eventually
from tests.support.served_streams import Served
from tests.support.websocket_client import Rejected, WebSocketClient

V5 = ["v5.channel.k8s.io"]
STDIN, STDOUT, STDERR, ERROR, RESIZE, CLOSE = 0, 1, 2, 3, 4, 255


@pytest.mark.parametrize("protocol", ["v5.channel.k8s.io", "v4.channel.k8s.io"])
async def test_output_and_exit_code(served: Served, protocol: str) -> None:
    url = served.exec_url("sh", "-c", "echo out; echo err >&2; exit 7", stdout=True, stderr=True)
    client = await WebSocketClient.connect(url, ["unknown", protocol])
    assert client.protocol == protocol
    assert await client.until_close() == 1000
    assert (client.received(STDOUT), client.received(STDERR)) == (b"out\n", b"err\n")
    assert json.loads(client.received(ERROR))["details"]["causes"][0]["message"] == "7"
    assert client.messages[0] == bytes([STDOUT])  # the empty message that says: connected
    await client.close()


@pytest.mark.parametrize("protocols", [[], ["channel.k8s.io"]])
async def test_the_first_protocol_has_text_errors(served: Served, protocols: list[str]) -> None:
    client = await WebSocketClient.connect(served.exec_url("sh", "-c", "exit 3", stdout=True), protocols)
    await client.until_close()
    assert client.received(ERROR) == b"command terminated with non-zero exit code: exit status 3"
    await client.close()


@pytest.mark.parametrize("protocol", ["base64.channel.k8s.io", "v4.base64.channel.k8s.io"])
async def test_base64(served: Served, protocol: str) -> None:
    client = await WebSocketClient.connect(served.exec_url("head", "-c", "5", stdin=True, stdout=True), [protocol])
    await client.send(events.TextMessage("0" + base64.b64encode(b"12345").decode()))
    await client.until_close()
    decoded = {text[0]: base64.b64decode(text[1:]) for text in client.texts if len(text) > 1}
    assert decoded["1"] == b"12345"
    assert (b"Success" in decoded.get("3", b"")) == protocol.startswith("v4.")
    await client.close()


async def test_stdin_half_close(served: Served) -> None:
    client = await WebSocketClient.connect(served.exec_url("cat", stdin=True, stdout=True), V5)
    await client.on(STDIN, b"some")
    await client.until(STDOUT, b"some")
    await client.send(events.BytesMessage(bytes([STDIN]) + b"th", message_finished=False))
    await client.send(events.BytesMessage(b"ing", message_finished=True))
    await client.on(CLOSE, bytes([STDOUT]))  # clients close what they only read as well
    await client.on(CLOSE, bytes([STDIN]))
    assert await client.until_close() == 1000
    assert client.received(STDOUT) == b"something"
    await client.close()


async def test_terminal_and_resize(served: Served) -> None:
    url = served.exec_url("sh", "-c", "read x; stty size", stdin=True, stdout=True, tty=True)
    client = await WebSocketClient.connect(url, V5)
    await client.on(RESIZE, b'{"Width":99,"Height":33}')
    await asyncio.sleep(0.2)
    await client.on(STDIN, b"\n")
    await client.until(STDOUT, b"33 99")
    await client.until_close()
    await client.close()


async def test_much_data_both_ways(served: Served) -> None:
    client = await WebSocketClient.connect(served.exec_url("cat", stdin=True, stdout=True), V5)
    block = os.urandom(1 << 16)

    async def send() -> None:
        for _ in range(50):
            await client.on(STDIN, block)
        await client.on(CLOSE, bytes([STDIN]))

    sending = asyncio.create_task(send())
    await client.until_close()
    await sending
    assert client.received(STDOUT) == block * 50
    await client.close()


async def test_pings_are_answered(served: Served) -> None:
    client = await WebSocketClient.connect(served.exec_url("sleep", "100", stdout=True), V5)
    await client.send(events.Ping())
    while not client.pongs:
        assert await client.receive()
    await client.close()


async def test_a_client_that_closes_ends_its_command(served: Served) -> None:
    client = await WebSocketClient.connect(served.exec_url("sleep", "100", stdout=True), V5)
    await eventually(lambda: len(served.runtime.sessions) == 1)
    await client.send(events.CloseConnection(code=1000))
    await client.until_close()
    await eventually(lambda: served.runtime.all_closed)
    await client.close()


@pytest.mark.parametrize(
    ("protocol", "message"),
    [
        ("v5.channel.k8s.io", events.BytesMessage(bytes([CLOSE, STDIN, STDOUT]))),
        ("base64.channel.k8s.io", events.TextMessage("0not base64!")),
        ("base64.channel.k8s.io", events.TextMessage("0" + "A" * (1 << 20))),
    ],
)
async def test_broken_messages_end_the_session(served: Served, protocol: str, message: events.Event) -> None:
    client = await WebSocketClient.connect(served.exec_url("cat", stdin=True, stdout=True), [protocol])
    await client.send(message)
    assert await client.until_close() == 1008
    await client.close()
    await eventually(lambda: served.runtime.all_closed)


async def test_bytes_that_are_no_websocket_end_the_session(served: Served) -> None:
    client = await WebSocketClient.connect(served.exec_url("sleep", "100", stdin=True, stdout=True), V5)
    client.writer.write(b"\xff" * 100)
    assert await client.until_close() == 1002
    await client.close()
    await eventually(lambda: served.runtime.all_closed)


async def test_messages_for_no_channel_are_dropped(served: Served) -> None:
    client = await WebSocketClient.connect(served.exec_url("cat", stdin=True, stdout=True), V5)
    for message in (b"", b"\x09nowhere", b"\x03error is ours", bytes([CLOSE, 77]), b"\x00here", b"\xff\x00"):
        await client.send(events.BytesMessage(message))
    await client.until_close()
    assert client.received(STDOUT) == b"here"
    await client.close()


async def test_unknown_subprotocols_are_refused(served: Served) -> None:
    with pytest.raises(Rejected) as refused:
        await WebSocketClient.connect(served.exec_url("cat", stdout=True), ["v9.channel.k8s.io"])
    assert refused.value.status == 403


async def test_attach(served: Served) -> None:
    served.runtime.attached_command = ("sh", "-c", "read x; echo got $x")
    client = await WebSocketClient.connect(served.attach_url(stdin=True, stdout=True, stderr=True), V5)
    await client.on(STDIN, b"this\n")
    await client.until_close()
    assert client.received(STDOUT) == b"got this\n"
    await client.close()
