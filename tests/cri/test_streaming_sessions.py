"""Exec, attach and port-forward into real pods, with our own client, over both transports."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from cri.client import CriError
from cri.streaming_client import StreamFailed, exec_session
from tests.support.asking import container_of
from tests.support.crid import SPARE, Crid
from tests.support.processes import commanded, eventually
from tests.support.spdy_client import SpdyClient

pytestmark = pytest.mark.timeout(900)  # the first run builds crictl
TRANSPORTS = ["spdy", "websocket"]


async def join(
    url: str, stdin: bytes | None = None, sizes: AsyncIterator[tuple[int, int]] | None = None
) -> tuple[int, bytes, bytes]:
    """Our own client on the URL: exit code, stdout, stderr."""
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        given.write(stdin or b"")
        given.seek(0)
        source = None if stdin is None else given.fileno()
        code = await exec_session(url, stdin=source, stdout=out.fileno(), stderr=err.fileno(), sizes=sizes)
        out.seek(0)
        err.seek(0)
        return code, out.read(), err.read()


async def exec_in(crid: Crid, container: str, *command: str, stdin: bytes | None = None) -> tuple[int, bytes, bytes]:
    wanted = {"stdin": stdin is not None, "stdout": True, "stderr": True}
    url = (await crid.cri.Exec(container_id=container, cmd=command, **wanted)).url
    return await join(url, stdin)


async def test_exec_with_all_streams(crid: Crid, busybox: str) -> None:
    container = await container_of(crid, busybox)
    script = "cat; echo $FROM; echo bad >&2; exit 42"
    assert await exec_in(crid, container, "sh", "-c", script, stdin=b"given ") == (42, b"given image\n", b"bad\n")


async def test_urls_are_on_loopback_and_work_once(crid: Crid, busybox: str) -> None:
    container = await container_of(crid, busybox)
    url = (await crid.cri.Exec(container_id=container, cmd=["true"], stdout=True)).url
    assert urlsplit(url).hostname == "127.0.0.1"
    assert (await join(url))[0] == 0
    with pytest.raises(StreamFailed, match="works once"):
        await join(url)


async def test_terminal(crid: Crid, busybox: str) -> None:
    async def sizes() -> AsyncIterator[tuple[int, int]]:
        yield 31, 97
        await asyncio.sleep(60)

    container = await container_of(crid, busybox, envs=[{"key": "OWN", "value": b"1"}])
    command = ["sh", "-c", "sleep 0.3; stty size; test -t 0 && tty; echo $TERM $OWN $FROM"]
    url = (await crid.cri.Exec(container_id=container, cmd=command, stdin=True, stdout=True, tty=True)).url
    code, out, _ = await join(url, b"", sizes())
    assert code == 0
    assert out.split()[:2] == [b"31", b"97"]
    assert b"/dev/pts/" in out or b"/dev/console" in out
    assert b"xterm 1 image" in out, "vi and top look for TERM"
    url = (await crid.cri.Exec(container_id=container, cmd=["env"], stdout=True)).url
    assert b"TERM=" not in (await join(url, b""))[1]


async def test_what_cannot_be_executed(crid: Crid, busybox: str) -> None:
    container = await container_of(crid, busybox)
    with pytest.raises(StreamFailed, match="no-such-program"):
        await exec_in(crid, container, "no-such-program")
    with pytest.raises(CriError) as refused:
        await crid.cri.Exec(container_id=container, cmd=[], stdout=True)
    assert refused.value.code == "INVALID_ARGUMENT"
    with pytest.raises(CriError) as refused:
        await crid.cri.Exec(container_id="no-such", cmd=["true"], stdout=True)
    assert refused.value.code == "NOT_FOUND"


async def test_a_client_that_leaves_takes_its_command_along(crid: Crid, busybox: str) -> None:
    container = await container_of(crid, busybox)
    seconds = str(10**6 + secrets.randbelow(10**6))  # nobody else on this machine sleeps as long
    url = (await crid.cri.Exec(container_id=container, cmd=["sleep", seconds], stdout=True)).url
    session = asyncio.create_task(join(url))
    await eventually(lambda: commanded("sleep", seconds))
    session.cancel()
    await asyncio.gather(session, return_exceptions=True)
    await eventually(lambda: not commanded("sleep", seconds))
    assert (await crid.exec(container, "true"))[0] == 0


def open_fds(pids: list[int]) -> int:
    return sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in pids)


async def shim_of(crid: Crid, container: str) -> int:
    """The parent of the container's process."""
    info = (await crid.cri.ContainerStatus(container_id=container, verbose=True)).info
    pid = json.loads(info["info"])["pid"]
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


async def leave_while(crid: Crid, container: str, *, tty: bool) -> None:
    """A client that opens everything, talks, and is gone without a word."""
    wanted = {"stdin": True, "stdout": True, "tty": tty}
    url = (await crid.cri.Exec(container_id=container, cmd=["cat"], **wanted)).url
    client = await SpdyClient.connect(url, ["v4.channel.k8s.io"])
    ids = await client.open_command("error", "stdin", "stdout", *(["resize"] if tty else []))
    await client.data(ids["stdin"], b"x\n")
    await client.until(ids["stdout"], b"x")
    await client.close()


@pytest.mark.parametrize("tty", [False, True])
async def test_clients_that_leave_leave_nothing_in_daemon_and_shim(crid: Crid, busybox: str, tty: bool) -> None:
    container = await container_of(crid, busybox)
    await leave_while(crid, container, tty=tty)
    assert crid.process is not None
    watched = [crid.process.pid, await shim_of(crid, container)]
    before = open_fds(watched)
    for _ in range(10):
        await asyncio.gather(*(leave_while(crid, container, tty=tty) for _ in range(10)))
    await eventually(lambda: open_fds(watched) <= before + SPARE)
    assert (await crid.exec(container, "sh", "-c", "ps | grep -c '[c]at'"))[1].strip() == "0"


async def test_attach_reads_what_is_said_from_now_on_and_ends_with_the_container(crid: Crid, busybox: str) -> None:
    script = "echo before; read x; echo got $x; echo bad >&2; exit 3"
    container = await container_of(crid, busybox, ["sh", "-c", script], stdin=True, stdin_once=True)
    url = (await crid.cri.Attach(container_id=container, stdin=True, stdout=True, stderr=True)).url
    code, out, err = await join(url, b"this\n")
    assert (code, err) == (0, b"bad\n")
    assert out.endswith(b"got this\n")
    assert (await crid.ended(container)).exit_code == 3


async def test_two_clients_are_attached_at_once(crid: Crid, busybox: str) -> None:
    container = await container_of(crid, busybox, ["sh", "-c", "read x; echo $x $x"], stdin=True)
    first = (await crid.cri.Attach(container_id=container, stdout=True)).url
    second = (await crid.cri.Attach(container_id=container, stdin=True, stdout=True)).url
    listening = asyncio.create_task(join(first))
    await asyncio.sleep(0.3)
    assert (await join(second, b"both\n"))[1] == b"both both\n"
    assert (await listening)[1] == b"both both\n"
