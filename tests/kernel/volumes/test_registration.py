"""Plugins come, go, change and misbehave in plugins_registry; each is told what became of it."""

from __future__ import annotations

import asyncio
import shutil
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from csi.client import PluginInfo
from csi.hostpath.sockets import served
from csi.proto import pluginregistration_pb2
from csi.proto.services import handler
from nodeagent import plugins
from nodeagent.plugins import PluginRefused, PluginWatcher
from nodeagent.volumes.manager import VolumeManager
from tests.support.csi_driver import NAME, DriverProcess


class Recorder:
    """A handler that takes every name but "bad"."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.gone: list[str] = []

    async def register(self, plugin: PluginInfo, socket: Path) -> None:
        if plugin.name == "bad":
            raise PluginRefused("bad name")
        self.names.append(plugin.name)

    async def deregister(self, plugin: PluginInfo, socket: Path) -> None:
        self.gone.append(plugin.name)


@contextmanager
def plugin(
    path: Path, name: str, *, kind: str = "CSIPlugin", endpoint: str = "", versions: tuple[str, ...] = ("1.0.0",)
) -> Iterator[list[tuple[bool, str]]]:
    """A registration socket; what it is told."""
    told: list[tuple[bool, str]] = []

    def info(request: Any, context: Any) -> Any:
        return pluginregistration_pb2.PluginInfo(type=kind, name=name, endpoint=endpoint, supported_versions=versions)

    def notify(request: Any, context: Any) -> Any:
        told.append((request.plugin_registered, request.error))
        return pluginregistration_pb2.RegistrationStatusResponse()

    service = pluginregistration_pb2.DESCRIPTOR.services_by_name["Registration"]
    with served(path, [handler(service, {"GetInfo": info, "NotifyRegistrationStatus": notify})], grace=0.1):
        yield told


async def until(done: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not done():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
async def registry(place: Path, recorder: Recorder) -> AsyncIterator[Path]:
    directory = place / "reg"
    watcher = PluginWatcher(directory, {"CSIPlugin": recorder})
    await watcher.start()
    yield directory
    await watcher.close()


async def test_a_plugin_comes_and_goes(registry: Path, recorder: Recorder) -> None:
    with plugin(registry / "a.sock", "a") as told:
        await until(lambda: told)
    assert told == [(True, "")]
    await until(lambda: recorder.gone)
    assert (recorder.names, recorder.gone) == (["a"], ["a"])


async def test_a_plugin_that_was_there_before(place: Path, recorder: Recorder) -> None:
    with plugin(place / "a.sock", "a"):
        watcher = PluginWatcher(place, {"CSIPlugin": recorder})
        await watcher.start()
        assert recorder.names == ["a"]
        await watcher.close()


async def test_a_replaced_socket_registers_again_without_a_gap(registry: Path, recorder: Recorder, place: Path) -> None:
    with plugin(registry / "a.sock", "a"):
        await until(lambda: recorder.names)
        with plugin(place / "successor.sock", "a"):
            (place / "successor.sock").rename(registry / "a.sock")
            await until(lambda: len(recorder.names) == 2)
    assert recorder.names == ["a", "a"]


@pytest.mark.parametrize(
    ("name", "kind", "words"), [("bad", "CSIPlugin", "bad name"), ("a", "DRAPlugin", "'DRAPlugin' is not served")]
)
async def test_a_refused_plugin_is_told_why(
    registry: Path, recorder: Recorder, name: str, kind: str, words: str
) -> None:
    with plugin(registry / "a.sock", name, kind=kind) as told:
        await until(lambda: told)
    assert not told[0][0]
    assert words in told[0][1]
    assert recorder.names == []


async def test_others_register_beside_one_that_hangs(registry: Path, recorder: Recorder) -> None:
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(registry / "silent.sock"))
        silent.listen()
        with plugin(registry / "a.sock", "a"):
            await until(lambda: recorder.names)


async def test_files_links_and_dead_sockets_are_no_plugins(registry: Path, recorder: Recorder) -> None:
    (registry / "file").write_text("x")
    (registry / "directory").mkdir()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(registry / "dead.sock"))
    with plugin(registry / "a.sock", "a"):
        (registry / "link.sock").symlink_to(registry / "a.sock")
        with plugin(registry / ".hidden.sock", "hidden"):
            await until(lambda: recorder.names)
            await asyncio.sleep(0.2)
    assert recorder.names == ["a"]


async def test_one_that_does_not_answer_yet_is_asked_again(
    place: Path, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plugins, "RESCAN", 0.3)
    watcher = PluginWatcher(place, {"CSIPlugin": recorder})
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place / "a.sock"))
        await watcher.start()
        assert recorder.names == []
    (place / "a.sock").unlink()
    with plugin(place / "a.sock", "a"):
        await until(lambda: recorder.names)
    await watcher.close()


async def test_a_registry_that_is_removed_is_made_again(
    place: Path, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plugins, "RESCAN", 0.2)
    directory = place / "reg"
    watcher = PluginWatcher(directory, {"CSIPlugin": recorder})
    await watcher.start()
    shutil.rmtree(directory)
    await until(directory.is_dir)
    with plugin(directory / "a.sock", "a"):
        await until(lambda: recorder.names)
    await watcher.close()


@pytest.mark.parametrize(
    ("name", "endpoint", "versions", "words"),
    [
        ("../../x", "", ("1.0.0",), "is no driver name"),
        (NAME, "", ("0.3.0",), "speaks CSI 0.3.0; this agent speaks 1.x"),
        (NAME, "", (), "of no version"),
        ("other.example", "{driver}", ("1.0.0",), f"calls itself '{NAME}', not 'other.example'"),
    ],
)
async def test_a_csi_driver_is_looked_at_closely(
    manager: VolumeManager, driver: DriverProcess, name: str, endpoint: str, versions: tuple[str, ...], words: str
) -> None:
    driver.start()
    await manager.drivers.get(NAME)
    where = endpoint.format(driver=driver.socket)
    with plugin(manager.layout.registry / "odd.sock", name, endpoint=where, versions=versions) as told:
        await until(lambda: told)
    assert words in told[0][1]
    assert manager.drivers.names() == [NAME]


async def test_a_wrong_endpoint_is_no_driver(manager: VolumeManager, place: Path) -> None:
    with plugin(manager.layout.registry / "odd.sock", "odd.example", endpoint=str(place / "nothing.sock")) as told:
        await asyncio.sleep(1)
    assert told == []
    assert manager.drivers.names() == []


async def test_a_driver_that_stops_cleanly_is_forgotten(manager: VolumeManager, driver: DriverProcess) -> None:
    driver.start()
    await manager.drivers.get(NAME)
    assert await asyncio.to_thread(driver.stop) == 0
    await until(lambda: not manager.drivers.names())
