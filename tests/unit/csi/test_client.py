"""The client against drivers that are away, slow, busy, talkative or no drivers at all."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from csi.client import AccessMode, CsiDriver, CsiError, PluginInfo, RegistrationClient, Volume
from csi.client.errors import DETAIL_LIMIT
from csi.hostpath.sockets import served
from csi.proto import csi_pb2, pluginregistration_pb2
from csi.proto.services import Answer, handler

VOLUME = Volume("vol-1", AccessMode.SINGLE_NODE_WRITER)


@contextmanager
def fake(path: Path, **answers: Answer) -> Iterator[None]:
    services = csi_pb2.DESCRIPTOR.services_by_name
    node = {name: answer for name, answer in answers.items() if name.startswith("Node")}
    identity = {name: answer for name, answer in answers.items() if name not in node}
    with served(path, [handler(services["Node"], node), handler(services["Identity"], identity)], grace=0.1):
        yield


def failing(code: grpc.StatusCode, words: str, times: int = 1 << 30) -> tuple[Answer, list[float]]:
    """An answer that fails `times` times, then succeeds; and when it was called."""
    calls: list[float] = []

    def answer(request: Any, context: grpc.ServicerContext) -> Any:
        calls.append(time.monotonic())
        if len(calls) <= times:
            context.abort(code, words)
        return csi_pb2.NodeStageVolumeResponse()

    return answer, calls


@pytest.fixture
async def driver(short_path: Path) -> AsyncIterator[CsiDriver]:
    client = CsiDriver(short_path / "csi.sock", "d.example", work_timeout=3, query_timeout=1, patience=0.5)
    yield client
    await client.close()


async def test_a_driver_that_is_gone(driver: CsiDriver) -> None:
    with pytest.raises(CsiError) as caught:
        await driver.stage(VOLUME, Path("/staging"))
    error = caught.value
    assert (error.code, error.volume, error.rpc) == ("UNAVAILABLE", "vol-1", "NodeStageVolume")
    assert str(error).startswith("CSI driver d.example: NodeStageVolume of volume vol-1: UNAVAILABLE")
    assert f"nothing answers at {driver.socket}: start the driver" in str(error)


async def test_a_driver_that_comes_back_is_waited_for(driver: CsiDriver) -> None:
    client = CsiDriver(driver.socket, "d.example", work_timeout=10, patience=5)
    stage, calls = failing(grpc.StatusCode.OK, "", times=0)
    pending = asyncio.create_task(client.stage(VOLUME, Path("/staging")))
    await asyncio.sleep(0.3)
    with fake(driver.socket, NodeStageVolume=stage):
        await pending
    await client.close()
    assert len(calls) == 1


async def test_a_busy_volume_is_asked_for_again(driver: CsiDriver) -> None:
    stage, calls = failing(grpc.StatusCode.ABORTED, "busy", times=3)
    with fake(driver.socket, NodeStageVolume=stage):
        await driver.stage(VOLUME, Path("/staging"))
    assert len(calls) == 4


@pytest.mark.parametrize("status", ["INVALID_ARGUMENT", "NOT_FOUND", "INTERNAL"])
async def test_other_failures_are_not_repeated(driver: CsiDriver, status: str) -> None:
    stage, calls = failing(grpc.StatusCode[status], "no such disk")
    with fake(driver.socket, NodeStageVolume=stage), pytest.raises(CsiError, match="no such disk") as caught:
        await driver.stage(VOLUME, Path("/staging"))
    assert caught.value.code == status
    assert len(calls) == 1


async def test_a_volume_that_stays_busy_ends_at_the_deadline(driver: CsiDriver) -> None:
    stage, calls = failing(grpc.StatusCode.ABORTED, "busy")
    started = time.monotonic()
    with fake(driver.socket, NodeStageVolume=stage), pytest.raises(CsiError, match="under way in the driver"):
        await driver.stage(VOLUME, Path("/staging"))
    assert 0.5 < time.monotonic() - started < 5
    assert len(calls) < 10


async def test_a_hanging_driver_ends_at_the_deadline(driver: CsiDriver) -> None:
    release = threading.Event()

    def hang(request: Any, context: grpc.ServicerContext) -> Any:
        release.wait(30)
        return csi_pb2.NodeGetInfoResponse()

    started = time.monotonic()
    with fake(driver.socket, NodeGetInfo=hang):
        try:
            with pytest.raises(CsiError, match="hangs or its storage does") as caught:
                await driver.node_info()
        finally:
            release.set()
    assert caught.value.code == "DEADLINE_EXCEEDED"
    assert time.monotonic() - started < 5


@contextmanager
def plain_server(path: Path, talk: Callable[[socket.socket], None]) -> Iterator[None]:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    talk(connection)

        thread = threading.Thread(target=accept)
        thread.start()
        yield
        listener.shutdown(socket.SHUT_RDWR)
    thread.join()


async def test_a_socket_that_talks_something_else(driver: CsiDriver) -> None:
    with plain_server(driver.socket, lambda connection: connection.sendall(b"220 mail.example ESMTP\r\n")):
        with pytest.raises(CsiError) as caught:
            await driver.node_info()
    assert caught.value.code in ("UNAVAILABLE", "DEADLINE_EXCEEDED")


async def test_a_socket_that_never_talks(driver: CsiDriver) -> None:
    with plain_server(driver.socket, lambda connection: time.sleep(2)):
        with pytest.raises(CsiError) as caught:
            await driver.node_info()
    assert caught.value.code in ("UNAVAILABLE", "DEADLINE_EXCEEDED")


async def test_another_service_behind_the_socket(driver: CsiDriver) -> None:
    with fake(driver.socket), pytest.raises(CsiError, match="is that really the driver's socket"):
        await driver.node_info()


async def test_a_talkative_driver_is_cut_short(driver: CsiDriver) -> None:
    stage, _ = failing(grpc.StatusCode.INTERNAL, "x" * 6000)
    with fake(driver.socket, NodeStageVolume=stage), pytest.raises(CsiError) as caught:
        await driver.stage(VOLUME, Path("/staging"))
    assert len(str(caught.value)) < DETAIL_LIMIT + 200


async def test_unknown_capabilities_of_a_newer_driver_are_ignored(driver: CsiDriver) -> None:
    rpc = csi_pb2.NodeServiceCapability.RPC

    def answer(request: Any, context: grpc.ServicerContext) -> Any:
        kinds = (rpc.STAGE_UNSTAGE_VOLUME, 99)
        found = [csi_pb2.NodeServiceCapability(rpc=rpc(type=kind)) for kind in kinds]  # type: ignore[arg-type]
        return csi_pb2.NodeGetCapabilitiesResponse(capabilities=found)

    with fake(driver.socket, NodeGetCapabilities=answer):
        assert await driver.node_capabilities() == {"STAGE_UNSTAGE_VOLUME"}


@pytest.mark.parametrize("path", ["relative.sock", "/" + "x" * 107, "/a\0b"])
def test_paths_that_no_socket_can_have(path: str) -> None:
    with pytest.raises(CsiError, match="bad socket path"):
        CsiDriver(Path(path), "d.example")


async def test_a_path_that_looks_like_a_url(short_path: Path) -> None:
    (short_path / "a%20b").mkdir()
    client = CsiDriver(short_path / "a%20b" / "csi?x#y.sock", "d.example", query_timeout=5)
    info = csi_pb2.NodeGetInfoResponse(node_id="n")
    with fake(client.socket, NodeGetInfo=lambda request, context: info):
        assert (await client.node_info()).node_id == "n"
    await client.close()


async def test_registration(short_path: Path) -> None:
    told: list[tuple[bool, str]] = []

    def info(request: Any, context: grpc.ServicerContext) -> Any:
        return pluginregistration_pb2.PluginInfo(
            type="CSIPlugin", name="d.example", endpoint="/x", supported_versions=["1.0.0"]
        )

    def notify(request: Any, context: grpc.ServicerContext) -> Any:
        told.append((request.plugin_registered, request.error))
        return pluginregistration_pb2.RegistrationStatusResponse()

    service = pluginregistration_pb2.DESCRIPTOR.services_by_name["Registration"]
    path = short_path / "d-reg.sock"
    with served(path, [handler(service, {"GetInfo": info, "NotifyRegistrationStatus": notify})], grace=0.1):
        client = RegistrationClient(path)
        assert await client.info() == PluginInfo("CSIPlugin", "d.example", "/x", ("1.0.0",))
        await client.notify()
        await client.notify("bad name")
        await client.close()
    assert told == [(True, ""), (False, "bad name")]
