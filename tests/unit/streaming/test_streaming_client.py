"""Our own client against our own server; other people's clients and servers follow in tests/cri."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cri.streaming_client import StreamFailed, exec_session
from tests.support.served_streams import Served


async def run(
    url: str, stdin: int | None = None, sizes: AsyncIterator[tuple[int, int]] | None = None
) -> tuple[int, bytes, bytes]:
    """Exit code, stdout, stderr."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        code = await exec_session(url, stdin=stdin, stdout=out.fileno(), stderr=err.fileno(), sizes=sizes)
        out.seek(0)
        err.seek(0)
        return code, out.read(), err.read()


async def test_output_and_exit_code(served: Served) -> None:
    url = served.exec_url("sh", "-c", "echo out; echo err >&2; exit 12", stdout=True, stderr=True)
    assert await run(url) == (12, b"out\n", b"err\n")


async def test_stdin_from_a_pipe_ends(served: Served) -> None:
    reading, writing = os.pipe()
    os.write(writing, b"to the end")
    os.close(writing)
    assert await run(served.exec_url("cat", stdin=True, stdout=True), stdin=reading) == (0, b"to the end", b"")
    os.close(reading)


async def test_stdin_from_a_file(served: Served) -> None:
    with tempfile.TemporaryFile() as source:
        payload = os.urandom(500_000)
        source.write(payload)
        source.flush()
        source.seek(0)
        code, out, _ = await run(served.exec_url("cat", stdin=True, stdout=True), stdin=source.fileno())
    assert (code, out) == (0, payload)


async def test_a_command_that_ends_before_its_stdin(served: Served) -> None:
    reading, writing = os.pipe()
    assert (await run(served.exec_url("true", stdin=True, stdout=True), stdin=reading))[0] == 0
    assert os.get_blocking(reading)
    os.close(reading)
    os.close(writing)


async def test_a_command_that_ends_while_its_stdin_goes_on(served: Served) -> None:
    endless = os.open("/dev/zero", os.O_RDONLY)
    url = served.exec_url("sh", "-c", "head -c 100000 >/dev/null; exit 3", stdin=True, stdout=True)
    assert (await run(url, stdin=endless))[0] == 3
    os.close(endless)


async def test_a_stdin_that_cannot_be_read_ends_the_session(served: Served, tmp_path: Path) -> None:
    directory = os.open(tmp_path, os.O_RDONLY)
    try:
        async with asyncio.timeout(10):
            with pytest.raises(IsADirectoryError):
                await run(served.exec_url("cat", stdin=True, stdout=True), stdin=directory)
    finally:
        os.close(directory)


async def test_terminal_sizes(served: Served) -> None:
    async def sizes() -> AsyncIterator[tuple[int, int]]:
        yield 20, 70
        await asyncio.sleep(60)

    url = served.exec_url("sh", "-c", "sleep 0.3; stty size", stdin=True, stdout=True, tty=True)
    code, out, _ = await run(url, sizes=sizes())
    assert code == 0
    assert out.strip() == b"20 70"


async def test_the_runtimes_words_reach_the_caller(served: Served) -> None:
    with pytest.raises(StreamFailed, match="executable file not found"):
        await run(served.exec_url("/no/such/thing", stdout=True))


async def test_a_used_url(served: Served) -> None:
    url = served.exec_url("true", stdout=True)
    await run(url)
    with pytest.raises(StreamFailed, match="works once"):
        await run(url)


async def test_a_runtime_that_goes_away(served: Served) -> None:
    session = asyncio.create_task(run(served.exec_url("sleep", "100", stdout=True)))
    while not served.runtime.sessions:  # noqa: ASYNC110  processes set no event
        await asyncio.sleep(0.01)
    await served.server.close()
    with pytest.raises((StreamFailed, ConnectionError)):
        await session


async def test_a_server_that_is_none() -> None:
    async def garbage(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"220 mail.example.org ESMTP\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(garbage, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with pytest.raises(StreamFailed):
        await run(f"http://127.0.0.1:{port}/exec/x")
    server.close()
