"""The streaming server with the ecosystem's own client, crictl, over its SPDY and its WebSocket code.

Behind the gRPC socket stand only the calls that crictl makes for a session; the commands are local processes.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from cri.proto import api_pb2 as api
from cri.proto.services import methods
from tests.support import peers
from tests.support.outside import run_in_terminal
from tests.support.processes import eventually
from tests.support.served_streams import Served

TRANSPORTS = ["spdy", "websocket"]
pytestmark = pytest.mark.timeout(900)  # the first run builds crictl


@pytest.fixture
async def crictl(served: Served) -> AsyncIterator[list[str]]:
    """The command line of a crictl that talks to the served streams."""
    binary = await asyncio.to_thread(peers.require, "crictl")
    home = Path(tempfile.mkdtemp(dir="/tmp", prefix="na-"))
    answers = {
        "Version": lambda request: api.VersionResponse(version="0.1.0", runtime_name="x", runtime_api_version="v1"),
        "ImageFsInfo": lambda request: api.ImageFsInfoResponse(),
        "Exec": lambda request: api.ExecResponse(url=served.server.prepare_exec(request)),
        "Attach": lambda request: api.AttachResponse(url=served.server.prepare_attach(request)),
        "PortForward": lambda request: api.PortForwardResponse(url=served.server.prepare_port_forward(request)),
    }
    server = grpc.aio.server()
    server.add_generic_rpc_handlers([_handler(name, answer) for name, answer in answers.items()])
    server.add_insecure_port(f"unix:{home}/cri.sock")
    await server.start()
    (home / "crictl.yaml").write_text(f"runtime-endpoint: unix://{home}/cri.sock\n")
    yield [str(binary), "--config", f"{home}/crictl.yaml"]
    await server.stop(0)
    shutil.rmtree(home)


def _handler(name: str, answer: Any) -> grpc.GenericRpcHandler:
    async def handle(request: Any, context: Any) -> Any:
        return answer(request)

    method = methods()[name]
    call: Any = grpc.unary_unary_rpc_method_handler(
        handle, method.request.FromString, lambda message: message.SerializeToString()
    )
    return grpc.method_handlers_generic_handler(method.service, {name: call})


async def run(command: list[str], stdin: bytes | None = None) -> tuple[int, bytes, bytes]:
    """Exit code, stdout, stderr."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL if stdin is None else asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(stdin), 60)
    return process.returncode or 0, out, err


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_exec(crictl: list[str], transport: str) -> None:
    command = [*crictl, "exec", "--transport", transport, "c1", "sh", "-c", "echo out; echo err >&2"]
    assert await run(command) == (0, b"out\n", b"err\n")


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_exit_codes(crictl: list[str], transport: str) -> None:
    code, _, err = await run([*crictl, "exec", "--transport", transport, "c1", "sh", "-c", "exit 37"])
    assert code
    assert b"37" in err


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_stdin_ends(crictl: list[str], transport: str) -> None:
    payload = os.urandom(3_000_000)
    code, out, err = await run([*crictl, "exec", "-i", "--transport", transport, "c1", "cat"], payload)
    assert (code, err) == (0, b"")
    assert out == payload


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_much_output(crictl: list[str], transport: str) -> None:
    code, out, _ = await run([*crictl, "exec", "--transport", transport, "c1", "head", "-c", "20000000", "/dev/zero"])
    assert (code, len(out)) == (0, 20_000_000)


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_terminal(crictl: list[str], transport: str) -> None:
    words = ["exec", "-it", "--transport", transport, "c1", "sh", "-c", "stty size; tty; exit 0"]
    said = await run_in_terminal(*crictl, *words)
    assert said.code == 0
    assert b"/dev/pts/" in said.out


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_attach(served: Served, crictl: list[str], transport: str) -> None:
    served.runtime.attached_command = ("sh", "-c", "read x; echo got $x; echo bad >&2")
    code, out, err = await run([*crictl, "attach", "-i", "--transport", transport, "c1"], b"it\n")
    assert (code, out, err) == (0, b"got it\n", b"bad\n")


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_port_forward(crictl: list[str], transport: str) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"you said: " + await reader.read())
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    forwarding = await asyncio.create_subprocess_exec(
        *[*crictl, "port-forward", "--transport", transport, "p1", f"0:{port}"], stdout=asyncio.subprocess.PIPE
    )
    assert forwarding.stdout is not None
    announced = re.search(rb"127\.0\.0\.1:(\d+)", await asyncio.wait_for(forwarding.stdout.readline(), 60))
    assert announced is not None
    for number in range(20):
        reader, writer = await asyncio.open_connection("127.0.0.1", int(announced[1]))
        writer.write(b"hello %d" % number)
        writer.write_eof()
        assert await asyncio.wait_for(reader.read(), 20) == b"you said: hello %d" % number
        writer.close()
    forwarding.terminate()
    await forwarding.wait()
    server.close()


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_an_interrupted_client_ends_its_command(served: Served, crictl: list[str], transport: str) -> None:
    process = await asyncio.create_subprocess_exec(*crictl, "exec", "--transport", transport, "c1", "sleep", "100")
    await eventually(lambda: len(served.runtime.sessions) == 1)
    process.kill()
    await process.wait()
    await eventually(lambda: served.runtime.all_closed)
