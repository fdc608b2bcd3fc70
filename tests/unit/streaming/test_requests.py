"""What comes before a session: tokens, the HTTP request, and every way to get neither."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from cri.server.streaming import server as server_module
from cri.server.streaming.http import MAX_HEAD
from cri.server.streaming.requests import InvalidStreamRequest
from cri.server.streaming.tokens import Tokens, TooManyTokens
from tests.support.processes import eventually
from tests.support.served_streams import Served, request, serving
from tests.support.spdy_client import Refused, SpdyClient
from tests.support.websocket_client import Rejected, WebSocketClient

V4 = ["v4.channel.k8s.io"]


async def answer(url: str, head: bytes) -> bytes:
    """What the server says to the bytes, up to the end of the connection."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    writer.write(head.replace(b"PATH", parts.path.encode()))
    writer.write_eof()
    said = await reader.read()
    writer.close()
    return said


async def test_a_url_works_once(served: Served) -> None:
    url = served.exec_url("true", stdout=True)
    await (await SpdyClient.connect(url, V4)).close()
    with pytest.raises(Refused) as refused:
        await SpdyClient.connect(url, V4)
    assert refused.value.status == 404


@pytest.mark.parametrize(
    "change", [("/exec/", "/attach/"), ("/exec/", "/exec/x"), ("/exec/", "/"), ("/exec/", "/../exec/")]
)
async def test_a_url_is_taken_as_it_was_given(served: Served, change: tuple[str, str]) -> None:
    with pytest.raises(Refused) as refused:
        await SpdyClient.connect(served.exec_url("true", stdout=True).replace(*change), V4)
    assert refused.value.status == 404


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET PATH HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"PUT PATH HTTP/1.1\r\nHost: x\r\n\r\n", 405),
        (b"POST PATH HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n", 400),
        (b"POST PATH HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc", 413),
        (b"POST PATH HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", 405),
        (b"GET PATH HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", 400),
        (b"GET PATH HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n", 400),
        (b"nonsense\r\n\r\n", 400),
        (b"GET PATH HTTP/1.1\r\nX: " + b"x" * 4 * MAX_HEAD + b"\r\n\r\n", 431),
    ],
)
async def test_requests_that_are_refused(served: Served, head: bytes, status: int) -> None:
    said = await answer(served.exec_url("true", stdout=True), head)
    assert said.startswith(b"HTTP/1.1 %d " % status), said
    assert b"\r\nlocation:" not in said.lower()
    assert served.runtime.sessions == []


async def test_clients_that_say_nothing_are_dropped(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "HEAD_TIMEOUT", 0.1)
    parts = urlsplit(served.exec_url("true", stdout=True))
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    writer.write(b"GET / HTTP/1.1\r\n")
    assert await asyncio.wait_for(reader.read(), 5) == b""
    writer.close()


async def test_connections_are_bounded(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "MAX_CONNECTIONS", 1)
    first = await SpdyClient.connect(served.exec_url("sleep", "100", stdout=True), V4)
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await SpdyClient.connect(served.exec_url("true", stdout=True), V4)
    await first.close()


@pytest.mark.parametrize(("host", "warned"), [("127.0.0.1", False), ("::1", False), ("0.0.0.0", True)])
async def test_an_address_of_the_network_without_tls_is_warned_of(
    host: str, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(host=host):
        assert ("without TLS" in caplog.text) == warned


async def test_those_who_show_no_token_keep_nobody_out(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is on this host can connect, a container on its network too; a client with a URL comes through."""
    monkeypatch.setattr(server_module, "MAX_CONNECTIONS", 20)
    monkeypatch.setattr(server_module, "MAX_STRANGERS", 5)
    session = await SpdyClient.connect(served.exec_url("sleep", "100", stdout=True), V4)
    parts = urlsplit(served.exec_url("true", stdout=True))
    strangers = [await asyncio.open_connection(parts.hostname, parts.port) for _ in range(30)]
    await (await SpdyClient.connect(served.exec_url("true", stdout=True), V4)).close()
    first, last = strangers[0][0], strangers[-1][0]
    assert await asyncio.wait_for(first.read(), 5) == b"" and not last.at_eof()
    await session.close()
    for _, writer in strangers:
        writer.close()


async def test_a_session_without_a_byte_is_ended() -> None:
    async with serving(idle_timeout=0.3) as served:
        client = await SpdyClient.connect(served.exec_url("sleep", "100", stdout=True), V4)
        ids = await client.open_command("error", "stdout")
        with pytest.raises(ConnectionError):
            await asyncio.wait_for(client.until_end(ids["error"]), 5)
            raise ConnectionResetError("an orderly end will do as well")
        await eventually(lambda: served.runtime.all_closed)


async def test_closing_the_server_ends_its_sessions() -> None:
    async with serving() as served:
        client = await SpdyClient.connect(served.exec_url("sleep", "100", stdout=True), V4)
        await client.open_command("error", "stdout")
        await eventually(lambda: len(served.runtime.sessions) == 1)
    assert served.runtime.all_closed
    await client.close()


def self_signed(key: Path, certificate: Path) -> None:
    command = f"openssl req -x509 -newkey rsa:2048 -nodes -keyout {key} -out {certificate} -days 2 -subj /CN=localhost"
    names = ["-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*command.split(), *names], check=True, capture_output=True, timeout=60)


async def test_tls(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    self_signed(key, certificate)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    async with serving(tls=context) as served:
        url = served.exec_url("echo", "secret", stdout=True)
        assert url.startswith("https://127.0.0.1:")
        trusting = ssl.create_default_context(cafile=str(certificate))
        client = await WebSocketClient.connect(url, ["v5.channel.k8s.io"], tls=trusting)
        assert await client.until_close() == 1000
        assert client.received(1) == b"secret\n"
        await client.close()
        with pytest.raises((Rejected, ConnectionError, asyncio.IncompleteReadError)):
            await WebSocketClient.connect(url.replace("https", "http"))


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"cmd": []}, "cmd is empty"),
        ({"container_id": ""}, "container_id is missing"),
        ({"tty": True, "stderr": True}, "a terminal has no stderr"),
        ({"stdout": False}, "none of stdin, stdout and stderr"),
    ],
)
async def test_requests_that_make_no_session(served: Served, fields: dict[str, object], reason: str) -> None:
    with pytest.raises(InvalidStreamRequest, match=reason):
        served.server.prepare_exec(request(**{"container_id": "c1", "cmd": ["true"], "stdout": True, **fields}))


@pytest.mark.parametrize("ports", [[0], [65536], [-1], [80] * 65])
async def test_ports_that_make_no_session(served: Served, ports: list[int]) -> None:
    with pytest.raises(InvalidStreamRequest, match="from 1 to 65535"):
        served.forward_url(*ports)
    with pytest.raises(InvalidStreamRequest, match="pod_sandbox_id"):
        served.server.prepare_port_forward(request(pod_sandbox_id="", port=[80]))


def test_tokens_expire_and_are_bounded() -> None:
    now = 0.0
    tokens: Tokens[str] = Tokens(lifetime=60, max_waiting=2, clock=lambda: now)
    first, second = tokens.issue("first"), tokens.issue("second")
    with pytest.raises(TooManyTokens, match="try again in 60 s"):
        tokens.issue("third")
    assert tokens.redeem(first) == "first"
    assert tokens.redeem(first) is None
    now = 60.0
    assert tokens.redeem(second) is None
    assert tokens.redeem(tokens.issue("fourth")) == "fourth"
