"""A kubelet root of its own for every test, and a proof at the end that no mount is left below it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from nodeagent.plugins import PluginWatcher
from nodeagent.volumes.manager import VolumeManager
from runtime.linux.ledger import Ledger
from runtime.linux.mounttable import unmount_beneath
from tests.support.csi_driver import DriverProcess


@pytest.fixture
def place(short_path: Path) -> Iterator[Path]:
    yield short_path
    unmount_beneath(short_path)


@pytest.fixture
def ledger(place: Path) -> Iterator[Ledger]:
    ledger = Ledger(place / "ledger.db", "nodeagent")
    yield ledger
    ledger.close()


@pytest.fixture
def driver(place: Path) -> Iterator[DriverProcess]:
    """Not started yet."""
    driver = DriverProcess(place)
    yield driver
    driver.kill()


@pytest.fixture
async def manager(place: Path, ledger: Ledger) -> AsyncIterator[VolumeManager]:
    """With its plugin watcher; calls of drivers have 3 s."""
    manager = VolumeManager(place / "k", ledger, work_timeout=3)
    watcher = PluginWatcher(manager.layout.registry, {"CSIPlugin": manager.drivers})
    await watcher.start()
    yield manager
    await watcher.close()
    await manager.close()
