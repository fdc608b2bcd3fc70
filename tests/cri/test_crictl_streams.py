"""crictl's sessions and streams: exec, attach, port-forward over both transports, logs, and events."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.support.asking import container_of
from tests.support.crictl import Crictl, Files, covers
from tests.support.crid import Crid
from tests.support.outside import run_in_terminal
from tests.support.processes import eventually

pytestmark = pytest.mark.timeout(900)  # the first run builds crictl
TRANSPORTS = ["spdy", "websocket"]


@asynccontextmanager
async def started(command: list[str]) -> AsyncIterator[asyncio.StreamReader]:
    """A command that runs until the block ends: its stdout."""
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    try:
        yield process.stdout
    finally:
        with contextlib.suppress(ProcessLookupError):  # it may have ended by itself
            process.terminate()
        await process.wait()


@pytest.mark.parametrize("transport", TRANSPORTS)
@covers("exec")
async def test_exec(crid: Crid, crictl: Crictl, busybox: str, transport: str) -> None:
    container = await container_of(crid, busybox)
    exec_ = ["exec", "--transport", transport]
    said = await crictl(*exec_, container, "sh", "-c", "echo out; echo err >&2")
    assert said == (0, b"out\n", b"err\n")
    payload = os.urandom(1 << 20)
    said = await crictl(*exec_, "-i", container, "cat", stdin=payload)
    assert (said.code, said.out == payload) == (0, True)
    said = await crictl(*exec_, container, "sh", "-c", "exit 37")
    assert said.code
    assert b"37" in said.err


@pytest.mark.parametrize("transport", TRANSPORTS)
@covers("exec")
async def test_exec_in_a_terminal(crid: Crid, crictl: Crictl, busybox: str, transport: str) -> None:
    container = await container_of(crid, busybox)
    script = "until stty size | grep 97; do sleep 0.05; done; test -t 0 && echo term"
    words = crictl.words("exec", "-it", "--transport", transport, container, "sh", "-c", script)
    said = await run_in_terminal(*words, rows=31, columns=97)
    assert said.code == 0
    assert b"31 97\r\nterm" in said.out


@covers("exec")
async def test_exec_sync(crid: Crid, crictl: Crictl, busybox: str) -> None:
    container = await container_of(crid, busybox)
    said = await crictl("exec", "-s", container, "sh", "-c", "echo out; echo err >&2")
    assert (said.code, said.out.split()) == (0, [b"out", b"err"])
    said = await crictl("exec", "-s", "--timeout", "1", container, "sleep", "60")
    assert said.code
    assert b"DeadlineExceeded" in said.err


@pytest.mark.parametrize("transport", TRANSPORTS)
@covers("attach")
async def test_attach(crid: Crid, crictl: Crictl, busybox: str, transport: str) -> None:
    container = await container_of(crid, busybox, ["sh", "-c", "read x; echo got $x"], stdin=True, stdin_once=True)
    said = await crictl("attach", "-i", "--transport", transport, container, stdin=b"it\n")
    assert (said.code, said.out) == (0, b"got it\n")


@pytest.mark.parametrize("address", ["127.0.0.1", "[::1]"])
@pytest.mark.parametrize("transport", TRANSPORTS)
@covers("port-forward")
async def test_port_forward(crid: Crid, crictl: Crictl, busybox: str, transport: str, address: str) -> None:
    """To a server on the pod's own loopback, which nothing outside of the pod can reach."""
    sandbox = await crid.run_pod()
    server = await crid.run(sandbox, busybox, ["httpd", "-f", "-p", f"{address}:8080", "-h", "/etc"])
    await crid.exec(server, "sh", "-c", "until netstat -ltn | grep -q :8080; do sleep 0.05; done")
    command = crictl.words("port-forward", "--transport", transport, sandbox[0], "0:8080")
    async with started(command) as said:
        announced = re.search(rb"127\.0\.0\.1:(\d+)", await asyncio.wait_for(said.readline(), 60))
        assert announced is not None
        for _ in range(5):
            reader, writer = await asyncio.open_connection("127.0.0.1", int(announced[1]))
            writer.write(b"GET /passwd HTTP/1.0\r\n\r\n")
            assert b"root:x:0:0" in await asyncio.wait_for(reader.read(), 20)
            writer.close()


@covers("logs", "run")
async def test_logs(crictl: Crictl, files: Files) -> None:
    container = await crictl.text("run", files.container, files.pod)
    written = files.logs / "main.log"
    await eventually(lambda: written.read_text().count("\n") == 2)
    said = await crictl("logs", container)
    assert (said.code, said.out, said.err) == (0, b"started\n", b"to stderr\n")
    assert (await crictl("logs", "--tail", "0", container)).out == b""
    assert (await crictl("logs", "--stream", "stderr", container)).out == b""
    assert b"T" in (await crictl("logs", "-t", container)).out.split()[0]
    written.rename(files.logs / "main.log.1")
    await crictl.text("logs", "--reopen", container)
    assert written.read_text() == ""


@covers("logs", "run", "stop")
async def test_logs_are_followed_to_the_end_of_the_container(crictl: Crictl, files: Files) -> None:
    container = await crictl.text("run", files.container, files.pod)
    async with started(crictl.words("logs", "-f", container)) as said:
        assert await asyncio.wait_for(said.readline(), 20) == b"started\n"
        await crictl.text("stop", "--timeout", "10", container)
        assert await asyncio.wait_for(said.read(), 20) == b""


@covers("events", "run", "rmp")
async def test_events(crictl: Crictl, files: Files) -> None:
    template = "{{.containerId}} {{.containerEventType}} {{.podSandboxStatus.metadata.name}}"
    async with started(crictl.words("events", "-o", "go-template", "--template", template)) as said:
        await asyncio.sleep(0.5)  # it does not say when it has subscribed
        container = await crictl.text("run", files.container, files.pod)
        await crictl.text("rmp", "-f", "-a")
        seen: list[str] = []
        async with asyncio.timeout(20):
            while not seen or seen[-1] != "CONTAINER_DELETED_EVENT":
                id, kind, pod = (await said.readline()).decode().split()
                if id == container:
                    seen.append(kind)
                    assert pod == files.name
    kinds = ["CREATED", "STARTED", "STOPPED", "DELETED"]
    assert seen == [f"CONTAINER_{kind}_EVENT" for kind in kinds]
