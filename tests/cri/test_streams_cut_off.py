"""Clients of every kind of stream, cut off at a random moment: afterwards daemon, shim and pod are as before."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from runtime.linux.cgroups import Cgroup
from tests.support.crid import SPARE, Crid
from tests.support.deaths import shim_of
from tests.support.processes import eventually
from tests.support.spdy_client import SpdyClient
from tests.support.websocket_client import WebSocketClient

SESSIONS = 160
AT_ONCE = 16
#: A server for port-forward, a reader and a writer for attach.
MAIN = [
    "sh",
    "-c",
    "exec 3<&0; httpd -p 8080; while read line; do echo $line; done <&3 & while :; do echo tick; sleep 0.05; done",
]
COMMANDS = [["cat"], ["yes"], ["sh", "-c", "sleep 1000 & sleep 1000"], ["true"], ["/no/such/program"]]


class Sessions:
    """Begins sessions of all kinds with one container, and leaves each of them somewhere on its way."""

    def __init__(self, crid: Crid, pod: str, container: str, seed: int) -> None:
        self._crid = crid
        self._pod = pod
        self._container = container
        self._random = random.Random(seed)

    async def one(self) -> None:
        kind = self._random.choice((self._exec, self._exec, self._attach, self._forward))
        task = asyncio.ensure_future(kind(self._random.choice((self._spdy, self._websocket))))
        await asyncio.wait({task}, timeout=self._random.choice((0.0, 0.002, 0.01, 0.03, 0.1)))
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, OSError, EOFError, Exception):
            await task

    async def _exec(self, join: Callable[..., Awaitable[None]]) -> None:
        tty = self._random.random() < 0.3
        wanted = {"stdin": True, "stdout": True, "stderr": not tty, "tty": tty}
        command = self._random.choice(COMMANDS)
        answer = await self._crid.cri.Exec(container_id=self._container, cmd=command, **wanted)
        await join(answer.url, ["error", "stdin", "stdout", *(["resize"] if tty else ["stderr"])])

    async def _attach(self, join: Callable[..., Awaitable[None]]) -> None:
        wanted = {"stdin": True, "stdout": True, "stderr": True}
        answer = await self._crid.cri.Attach(container_id=self._container, **wanted)
        await join(answer.url, ["error", "stdin", "stdout", "stderr"])

    async def _forward(self, join: Callable[..., Awaitable[None]]) -> None:
        port = self._random.choice((8080, 9))  # nobody listens on the second
        answer = await self._crid.cri.PortForward(pod_sandbox_id=self._pod, port=[port])
        if join == self._spdy:
            client = await SpdyClient.connect(answer.url, ["portforward.k8s.io"])
            try:
                await client.open(streamType="error", port=str(port), requestID="0")
                data = await client.open(streamType="data", port=str(port), requestID="0")
                await client.data(data, b"GET / HTTP/1.0\r\n\r\n")
                await client.until_end(data)
            finally:
                await client.close()

    async def _spdy(self, url: str, kinds: list[str]) -> None:
        client = await SpdyClient.connect(url, ["v4.channel.k8s.io"])
        try:
            ids = await client.open_command(*kinds)
            for _ in range(20):
                await client.data(ids["stdin"], b"something to read\n" * 100, fin=self._random.random() < 0.1)
                await client.receive()
        finally:
            await client.close()

    async def _websocket(self, url: str, kinds: list[str]) -> None:
        client = await WebSocketClient.connect(url, ["v5.channel.k8s.io"])
        try:
            for _ in range(20):
                await client.on(0, b"something to read\n" * 100)
                await client.receive()
        finally:
            await client.close()


def descriptors(*pids: int) -> int:
    return sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in pids)


def threads(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/task"))


def leaves(cgroup: Cgroup) -> list[str]:
    """Cgroups of execs."""
    return [folder for folder, _, _ in os.walk(cgroup.v2) if "/exec-" in folder]


def processes(cgroup: Cgroup) -> int:
    """In it and beneath it, where execs have theirs."""
    return sum(len(path.read_text().split()) for path in Path(cgroup.v2).rglob("cgroup.procs"))


@pytest.mark.parametrize("seed", [1])
async def test_sessions_cut_off_leave_nothing(crid: Crid, busybox: str, seed: int) -> None:
    pod, config = await crid.run_pod()
    container = await crid.run((pod, config), busybox, MAIN, stdin=True)
    assert crid.process is not None
    daemon, shim = crid.process.pid, await shim_of(crid, pod)
    cgroup = Cgroup(f"/{crid.bridge}/pod{config.metadata.uid}")
    sessions = Sessions(crid, pod, container, seed)
    await asyncio.gather(*(sessions.one() for _ in range(AT_ONCE)))  # all that is made once is made now
    await eventually(lambda: processes(cgroup) <= 6)
    before = descriptors(daemon), descriptors(shim), threads(daemon)
    for _ in range(SESSIONS // AT_ONCE):
        await asyncio.gather(*(sessions.one() for _ in range(AT_ONCE)))
    await eventually(lambda: processes(cgroup) <= 6)  # the container's own five, and a sleep that comes and goes
    await eventually(lambda: descriptors(daemon) <= before[0] + SPARE and descriptors(shim) <= before[1])
    assert threads(daemon) <= before[2] + 4  # a pool that grows to its size
    await eventually(lambda: not leaves(cgroup))
    assert await crid.exec(container, "echo", "well") == (0, "well\n", "")
