"""Exec and attach over SPDY, as kubectl and crictl do it by default."""

from __future__ import annotations

import asyncio
import json
import os
import time
from pathlib import Path

import pytest

from cri.server.streaming import inbox, over_spdy, remote_command
from cri.server.streaming.spdy import frames
from tests.support.processes import eventually
from tests.support.served_streams import Served
from tests.support.spdy_client import SpdyClient

V4 = ["v4.channel.k8s.io"]


async def session(
    served: Served, *command: str, kinds: tuple[str, ...], **streams: bool
) -> tuple[SpdyClient, dict[str, int]]:
    client = await SpdyClient.connect(served.exec_url(*command, **streams), V4)
    return client, await client.open_command(*kinds)


def bytes_written(pid: int) -> int:
    counters = Path(f"/proc/{pid}/io").read_text().splitlines()
    return int(next(line for line in counters if line.startswith("wchar")).split()[1])


async def test_output_error_output_and_exit_code(served: Served) -> None:
    command = ("sh", "-c", "echo out; echo err >&2; exit 7")
    client, ids = await session(served, *command, kinds=("error", "stdout", "stderr"), stdout=True, stderr=True)
    assert await client.until_end(ids["stdout"]) == b"out\n"
    assert await client.until_end(ids["stderr"]) == b"err\n"
    status = json.loads(await client.until_end(ids["error"]))
    assert status["status"] == "Failure"
    assert status["reason"] == "NonZeroExitCode"
    assert status["details"]["causes"] == [{"reason": "ExitCode", "message": "7"}]
    await client.close()


async def test_success_and_stdin_half_close(served: Served) -> None:
    client, ids = await session(served, "cat", kinds=("error", "stdin", "stdout"), stdin=True, stdout=True)
    await client.data(ids["stdin"], b"one ")
    await client.until(ids["stdout"], b"one ")
    await client.data(ids["stdin"], b"two", fin=True)
    assert await client.until_end(ids["stdout"]) == b"one two"
    assert json.loads(await client.until_end(ids["error"]))["status"] == "Success"
    assert any(isinstance(frame, frames.GoAway) for frame in client.other)
    await client.close()


@pytest.mark.parametrize(
    ("protocol", "error"),
    [
        ("v3.channel.k8s.io", b"command terminated with non-zero exit code: exit status 3"),
        ("v2.channel.k8s.io", b"command terminated with non-zero exit code: exit status 3"),
        ("channel.k8s.io", b"command terminated with non-zero exit code: exit status 3"),
    ],
)
async def test_older_protocols_have_text_on_the_error_stream(served: Served, protocol: str, error: bytes) -> None:
    client = await SpdyClient.connect(served.exec_url("sh", "-c", "exit 3", stdout=True), [protocol])
    ids = await client.open_command("error", "stdout")
    assert client.protocol == protocol
    assert await client.until_end(ids["error"]) == error
    await client.close()


async def test_terminal_and_resize(served: Served) -> None:
    script = "stty size; read x; stty size; exit 0"
    kinds = ("error", "stdin", "stdout", "resize")
    client, ids = await session(served, "sh", "-c", script, kinds=kinds, stdin=True, stdout=True, tty=True)
    await client.data(ids["resize"], b'{"Width":120,"Height":40}\n')
    await asyncio.sleep(0.2)
    await client.data(ids["stdin"], b"\n")
    assert b"40 120" in await client.until_end(ids["stdout"])
    assert json.loads(await client.until_end(ids["error"]))["status"] == "Success"
    await client.close()


async def test_a_command_that_cannot_start(served: Served) -> None:
    client, ids = await session(served, "/no/such/thing", kinds=("error", "stdout"), stdout=True)
    status = json.loads(await client.until_end(ids["error"]))
    assert status["reason"] == "InternalError"
    assert "executable file not found" in status["message"]
    await client.close()


async def test_death_by_signal(served: Served) -> None:
    client, ids = await session(served, "sh", "-c", "kill -9 $$", kinds=("error", "stdout"), stdout=True)
    status = json.loads(await client.until_end(ids["error"]))
    assert status["details"]["causes"][0]["message"] == "137"
    await client.close()


async def test_much_data_both_ways(served: Served) -> None:
    client, ids = await session(served, "cat", kinds=("error", "stdin", "stdout"), stdin=True, stdout=True)
    block = os.urandom(1 << 16)

    async def send() -> None:
        for _ in range(100):
            await client.data(ids["stdin"], block)
        await client.data(ids["stdin"], b"", fin=True)

    sending = asyncio.create_task(send())
    assert await client.until_end(ids["stdout"]) == block * 100
    await sending
    await client.close()


async def test_a_client_that_does_not_read_stops_the_command_not_the_server(served: Served) -> None:
    client, _ = await session(served, "yes", kinds=("error", "stdout"), stdout=True)
    await asyncio.sleep(0.5)
    assert bytes_written(served.runtime.sessions[0].process.pid) < 32 << 20
    await client.close()


async def test_a_command_that_does_not_read_stops_the_client(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox, "PEER_CHECK", 0.2)
    client, ids = await session(served, "sleep", "100", kinds=("error", "stdin"), stdin=True)
    block = bytes(1 << 16)
    sent = 0
    with pytest.raises(TimeoutError):
        while sent < 1 << 30:
            async with asyncio.timeout(0.5):
                await client.data(ids["stdin"], block)
            sent += len(block)
    assert sent >= inbox.LIMIT
    await client.close()
    await eventually(lambda: served.runtime.all_closed)  # its leaving is noticed although nobody reads


async def test_a_client_that_leaves_ends_its_command(served: Served) -> None:
    client, _ = await session(served, "sleep", "100", kinds=("error", "stdout"), stdout=True)
    await eventually(lambda: len(served.runtime.sessions) == 1)
    await client.close()
    await eventually(lambda: served.runtime.all_closed)


async def test_a_client_that_gives_up_one_stream_keeps_the_others(served: Served) -> None:
    script = "read x; head -c 1000000 /dev/zero; echo done >&2"
    kinds = ("error", "stdin", "stdout", "stderr")
    client, ids = await session(served, "sh", "-c", script, kinds=kinds, stdin=True, stdout=True, stderr=True)
    await client.send(frames.reset(ids["stdout"], frames.RST_CANCEL))
    await client.data(ids["stdin"], b"\n")
    assert await client.until_end(ids["stderr"]) == b"done\n"
    assert json.loads(await client.until_end(ids["error"]))["status"] == "Success"
    await client.close()


async def test_a_background_child_that_keeps_the_pipe_does_not_keep_the_session(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_command, "QUIET", 0.2)
    client, ids = await session(
        served, "sh", "-c", "echo here; sleep 5 & exit 4", kinds=("error", "stdout"), stdout=True
    )
    started = time.monotonic()
    assert await client.until_end(ids["stdout"]) == b"here\n"
    assert json.loads(await client.until_end(ids["error"]))["details"]["causes"][0]["message"] == "4"
    assert time.monotonic() - started < 3
    await client.close()


async def test_stdin_of_a_command_that_closed_it_is_dropped(served: Served) -> None:
    command = ("sh", "-c", "exec <&-; sleep 0.5; echo bye")
    client, ids = await session(served, *command, kinds=("error", "stdin", "stdout"), stdin=True, stdout=True)
    await client.data(ids["stdin"], bytes(1 << 20))
    assert await client.until_end(ids["stdout"]) == b"bye\n"
    await client.close()


async def test_attach_ends_with_the_containers_output(served: Served) -> None:
    served.runtime.attached_command = ("sh", "-c", "read x; echo got $x; exit 9")
    client = await SpdyClient.connect(served.attach_url(stdin=True, stdout=True), V4)
    ids = await client.open_command("error", "stdin", "stdout")
    await client.data(ids["stdin"], b"it\n")
    assert await client.until_end(ids["stdout"]) == b"got it\n"
    assert json.loads(await client.until_end(ids["error"]))["status"] == "Success"
    await client.close()


async def test_streams_that_nobody_asked_for_are_refused(served: Served) -> None:
    client = await SpdyClient.connect(served.exec_url("cat", stdout=True), V4)
    assert client.was_reset(await client.open(streamType="stdin"))
    assert client.was_reset(await client.open(streamType="nonsense"))
    assert not client.was_reset(await client.open(streamType="error"))
    assert client.was_reset(await client.open(streamType="error"))
    await client.close()


async def test_a_client_that_opens_no_streams_is_dropped(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(over_spdy, "CREATION_TIMEOUT", 0.2)
    client = await SpdyClient.connect(served.exec_url("cat", stdout=True), V4)
    stream = await client.open(streamType="error")
    assert await client.until_end(stream) == b""
    assert served.runtime.sessions == []
    await client.close()
