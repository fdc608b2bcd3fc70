"""A start that fails leaves nothing that runs, and one that succeeds is not said to have failed."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import AsyncMock

import pytest

from cri.proto import api_pb2 as api
from cri.server.calls import start_container as module
from cri.server.calls.start_container import start_container
from cri.server.checkpoint import workplace
from cri.server.events import Events
from cri.server.exits import Exits
from cri.server.pods import Container, Sandbox
from cri.server.store import Store
from runtime.client import Exited, Started
from runtime.linux.cgroups import Layout
from runtime.linux.database import DatabaseFull
from runtime.linux.ledger import Ledger
from runtime.linux.records import Records
from runtime.spec import ContainerSpec

ID = "c" * 64
REQUEST = api.StartContainerRequest(container_id=ID)


class Shim:
    """Starts, or does not answer; what it removes it tells to have exited, as it does when that runs."""

    def __init__(self, exits: Exits, failure: Exception | None) -> None:
        self.failure = failure
        self.removed: list[str] = []
        self._exits = exits

    async def start_container(self, spec: ContainerSpec) -> Started:
        if self.failure is not None:
            raise self.failure
        return Started(77, 10)

    async def remove_container(self, id: str) -> None:
        self.removed.append(id)
        self._exits.on_event(Exited("s", id, 137, 11, False))


def daemon(tmp_path: Path, records: Records, ledger: Ledger, failure: Exception | None = None) -> Any:
    """A crid with one container that is CREATED."""
    store, events = Store(records), Events()
    exits = Exits(store, events, ledger)
    config = api.PodSandboxConfig(metadata={"name": "pod", "uid": "u", "namespace": "ns"})
    layout = Layout({}, "/sys/fs/cgroup", frozenset())
    sandbox = Sandbox("s" * 64, config, "", "/pods/p", 5, ready_at=6, layout=layout)
    sandbox.pod = Shim(exits, failure)  # type: ignore[assignment]
    spec = ContainerSpec(ID, sandbox.id, {"process": {}, "linux": {"cgroupsPath": "/pods/p/c"}}, "/rootfs")
    asked = api.ContainerConfig(metadata={"name": "main"})
    user, limits = api.LinuxContainerUser(), api.LinuxContainerResources()
    store.save_sandbox(sandbox)
    store.add_container(Container(ID, sandbox, asked, spec, "", "", "", user, 15, limits, 7, []))
    return SimpleNamespace(
        store=store,
        events=events,
        exits=exits,
        ledger=ledger,
        nri=AsyncMock(),
        criu=AsyncMock(),
        config=SimpleNamespace(root=tmp_path),
    )


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[tuple[Path, Records, Ledger]]:
    records, ledger = Records(tmp_path / "ledger.db"), Ledger(tmp_path / "ledger.db", "test")
    yield tmp_path, records, ledger
    ledger.close()
    records.close()


async def test_a_start_that_cannot_be_written_down(parts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It runs no more, and can be started once there is room."""
    crid = daemon(*parts)
    container = crid.store.containers.get(ID)

    def full(_: Container) -> None:
        raise DatabaseFull("disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(crid.store, "save_state", full)
        with pytest.raises(DatabaseFull):
            await start_container(crid, REQUEST)
    assert container.sandbox.pod.removed == [ID]
    assert (container.state, container.pid, crid.exits._early) == (api.CONTAINER_CREATED, 0, {})
    assert crid.ledger.entries("cgroup") == []
    await start_container(crid, REQUEST)
    assert (container.state, container.pid) == (api.CONTAINER_RUNNING, 77)


async def test_a_shim_that_is_too_slow(parts: Any) -> None:
    """It may start the container yet, and nobody would end it."""
    crid = daemon(*parts, TimeoutError("the shim did not answer"))
    container = crid.store.containers.get(ID)
    with pytest.raises(TimeoutError):
        await start_container(crid, REQUEST)
    assert container.sandbox.pod.removed == [ID]
    assert (container.state, container.reason, container.exit_code) == (api.CONTAINER_EXITED, "StartError", 128)


async def test_a_checkpoint_that_cannot_be_removed(
    parts: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    crid = daemon(*parts)
    workplace.place_of(crid, ID).mkdir(parents=True)

    def fails(path: Path) -> None:
        raise OSError(5, "Input/output error", str(path))

    monkeypatch.setattr(module, "revive", AsyncMock(return_value=Started(77, 10)))
    monkeypatch.setattr(workplace, "remove_tree", fails)
    await start_container(crid, REQUEST)
    assert crid.store.containers.get(ID).state == api.CONTAINER_RUNNING
    assert "could not be removed" in next(each.message for each in caplog.records if each.levelno == logging.ERROR)
