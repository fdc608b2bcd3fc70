"""NRI plugins that hang, crash or lie: they cost one delay, and themselves."""

from __future__ import annotations

import asyncio
import time

import pytest

from cri.client import CriError
from cri.proto import nri_pb2 as nri
from cri.proto import ttrpc_pb2
from cri.server.nri import mux, ttrpc
from tests.support.crid import Crid
from tests.support.nri import NriPlugin
from tests.support.nri_peer import SERVICE, NriPeer, message, payload

SLEEP = ["sleep", "1000"]


async def test_a_plugin_that_hangs_costs_one_delay_and_is_closed(crid: Crid, busybox: str) -> None:
    async with NriPlugin(crid, "10") as plugin:
        plugin.script(hang=["CreateContainer"])
        pod = await crid.run_pod()
        await crid.create(pod, busybox, SLEEP)
        await plugin.logged("failed at CreateContainer, it is closed: no answer to CreateContainer within 2 s")
        await crid.create(pod, busybox, SLEEP, name="next")
        assert plugin.told(pod[0]).count("CreateContainer") == 1


async def test_the_failure_policy_is_the_plugins_own(crid: Crid, busybox: str) -> None:
    async with NriPlugin(crid, "10", "-fail-request", "-keep-connected") as plugin:
        plugin.script(hang=["CreateContainer"])
        pod = await crid.run_pod()
        with pytest.raises(CriError, match="NRI plugin 10-test failed at CreateContainer: no answer"):
            await crid.create(pod, busybox, SLEEP)
        plugin.script()
        await crid.create(pod, busybox, SLEEP)
        assert plugin.told(pod[0]).count("CreateContainer") == 2


async def test_a_plugin_that_hangs_and_is_kept_delays_many_as_it_delays_one(crid: Crid) -> None:
    async with NriPlugin(crid, "10", "-keep-connected") as plugin:
        plugin.script(hang=["RunPodSandbox"])
        started = time.monotonic()
        await asyncio.gather(*(crid.run_pod() for _ in range(20)))
        assert time.monotonic() - started < 10  # in turn they would take 2 s each
        plugin.script()
        pod = await crid.run_pod()
        assert plugin.told(pod[0]) == ["RunPodSandbox"]


async def test_a_plugin_that_crashes_is_gone_and_can_come_back(crid: Crid, busybox: str) -> None:
    async with NriPlugin(crid, "10") as plugin:
        plugin.script(crash=["CreateContainer"])
        pod = await crid.run_pod()
        container = await crid.run(pod, busybox, SLEEP)
        await plugin.logged("is gone: it closed its connection")
        plugin.script()
        plugin.start()
        told = await plugin.until("Synchronize", 2)
        assert told["pods"] == [pod[0]] and told["containers"] == [container]


LIES = {
    "garbage": b"\xff" * 64,
    "a payload that is too long": payload(mux.PLUGIN, b"")[:4] + b"\x10\x00\x00\x00",
    "a connection that does not exist": payload(9, b"x"),
    "a message that is too long": payload(mux.PLUGIN, message(ttrpc.DATA_MAX + 1, 1, ttrpc.RESPONSE, b"")),
    "a stream of data": payload(mux.PLUGIN, message(0, 1, 3, b"")),
    "an answer to no call": payload(mux.PLUGIN, message(0, 99, ttrpc.RESPONSE, b"")),
    "an answer that is none": payload(mux.PLUGIN, message(3, 5, ttrpc.RESPONSE, b"\xff\xff\xff")),
    "a call on the wrong connection": payload(mux.PLUGIN, message(0, 3, ttrpc.REQUEST, b"")),
    "a call with an even number": payload(mux.RUNTIME, message(0, 4, ttrpc.REQUEST, b"")),
    "a call with an old number": payload(mux.RUNTIME, message(0, 1, ttrpc.REQUEST, b"")),
    "a call that is none": payload(mux.RUNTIME, message(3, 7, ttrpc.REQUEST, b"\xff\xff\xff")),
}


@pytest.mark.parametrize("lie", LIES)
async def test_a_plugin_that_lies_is_closed_and_the_request_goes_on(crid: Crid, busybox: str, lie: str) -> None:
    async with NriPeer(crid.state / "nri.sock") as liar:
        await liar.join()
        making = asyncio.create_task(crid.run_pod())
        await liar.frame()  # RunPodSandbox
        await liar.send(LIES[lie])
        await liar.closed()
        pod = await making
    assert await crid.run(pod, busybox, SLEEP)
    assert "NRI plugin 66-liar is gone: it broke the protocol" in crid.log.read_text()


async def test_answers_of_another_kind_fail_nothing_but_the_plugin(crid: Crid, busybox: str) -> None:
    async with NriPeer(crid.state / "nri.sock") as liar:
        await liar.join(1 << nri.RUN_POD_SANDBOX - 1 | 1 << nri.CREATE_CONTAINER - 1)
        making = asyncio.create_task(crid.run_pod())
        await liar.answer(nri.RunPodSandboxResponse())
        pod = await making
        creating = asyncio.create_task(crid.create(pod, busybox, SLEEP))
        connection, frame = await liar.frame()
        answer = ttrpc_pb2.Response(payload=b"\x0a\xff").SerializeToString()
        await liar.send(mux.wrap(connection, ttrpc.encode(frame.stream, ttrpc.RESPONSE, answer)))
        await creating
        await liar.closed()


@pytest.mark.parametrize(("index", "name"), [("1", "x"), ("123", "x"), ("ab", "x"), ("10", ""), ("10", "a/b")])
async def test_a_plugin_without_a_proper_name_is_not_accepted(crid: Crid, index: str, name: str) -> None:
    async with NriPeer(crid.state / "nri.sock") as peer:
        assert (await peer.register(index, name)).status.code == ttrpc.UNKNOWN
        await peer.closed()


async def test_events_that_do_not_exist_and_calls_that_do_not_exist(crid: Crid) -> None:
    async with NriPeer(crid.state / "nri.sock") as peer:
        assert (await peer.ask("NoSuchCall", nri.Empty())).status.code == ttrpc.UNIMPLEMENTED
        await peer.ask("RegisterPlugin", nri.RegisterPluginRequest(plugin_name="x", plugin_idx="10"), stream=3)
        await peer.answer(nri.ConfigureResponse(events=1 << 20))
        await peer.closed()


async def test_more_calls_at_once_than_are_served_are_refused(crid: Crid, busybox: str) -> None:
    async with NriPeer(crid.state / "nri.sock") as peer:
        await peer.join(1 << nri.STOP_POD_SANDBOX - 1)
        request = nri.UpdateContainersRequest().SerializeToString()
        calls = [ttrpc.request(stream, SERVICE, "UpdateContainers", request, 5) for stream in range(3, 203, 2)]
        await peer.send(b"".join(mux.wrap(mux.RUNTIME, call) for call in calls))
        await peer.closed()
        await crid.run_pod()
