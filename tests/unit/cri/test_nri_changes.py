"""Updates that NRI plugins ask for: one that fails costs no other one, and none is done by halves."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cri.proto import nri_pb2 as nri
from cri.server.nri import changes
from cri.server.nri.changes import Changes
from cri.server.nri.config import NriConfig
from cri.server.nri.plugin import Plugin, Terms
from cri.server.nri.plugins import Plugins
from cri.server.store import Index
from runtime.client import ShimLost, StartError
from runtime.linux.cgroups import CgroupError, Layout
from runtime.linux.database import DatabaseFull
from tests.support.nri_peer import NriPeer

Change = Callable[[Any, Any, Any], Awaitable[None]]


@pytest.fixture
def containers() -> dict[str, Any]:
    sandbox = SimpleNamespace(layout=Layout({}, "/sys/fs/cgroup", frozenset()))
    return {
        id: SimpleNamespace(id=id, name=id, sandbox=sandbox, finished_at=0, lock=asyncio.Lock()) for id in ("a", "b")
    }


@pytest.fixture
def updates(containers: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Callable[[Change], Changes]:
    """Changes of a store with these containers, whose limits are changed by the function given."""

    def with_change(change: Change) -> Changes:
        monkeypatch.setattr(changes, "change_limits", change)
        monkeypatch.setattr(changes, "UPDATE_SECONDS", 0.01)
        index: Index[Any] = Index("container")
        for container in containers.values():
            index.add(container)
        return Changes(SimpleNamespace(containers=index))  # type: ignore[arg-type]

    return with_change


BOTH = [nri.ContainerUpdate(container_id=id) for id in ("a", "b")]


@pytest.mark.parametrize(
    "failure", [StartError("no"), ShimLost("gone"), DatabaseFull("full"), CgroupError("no"), OSError("busy")]
)
async def test_one_that_fails_is_told_and_the_next_one_is_done(updates: Any, failure: Exception) -> None:
    done = []

    async def change(_: Any, container: Any, __: Any) -> None:
        if container.id == "a":
            raise failure
        done.append(container.id)

    failed = await updates(change).update(BOTH)
    assert ([each.container_id for each in failed], done) == (["a"], ["b"])


async def test_a_container_that_is_busy_is_not_waited_for_and_a_change_is_never_cut_off(
    updates: Any, containers: dict[str, Any]
) -> None:
    done = []

    async def change(_: Any, container: Any, __: Any) -> None:
        await asyncio.sleep(10 * changes.UPDATE_SECONDS)
        done.append(container.id)

    async with containers["a"].lock:
        failed = await updates(change).update(BOTH)
    assert ([each.container_id for each in failed], done) == (["a"], ["b"])
    assert not containers["b"].lock.locked()


async def test_a_plugin_at_which_crid_itself_fails_costs_only_itself(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def synchronize(_: Plugin) -> None:
        raise RuntimeError("a fault of ours")

    async def update(*_: Any) -> nri.UpdateContainersResponse:
        return nri.UpdateContainersResponse()

    config = NriConfig(socket=tmp_path / "nri.sock", plugin_path=tmp_path / "none", plugin_config_path=tmp_path)
    plugins = Plugins(config, Terms("crid", "1", 5, 5), update, synchronize)
    await plugins.start()
    async with NriPeer(config.socket) as peer:
        assert not (await peer.register()).status.code
        await peer.answer(nri.ConfigureResponse())
        await peer.closed()
    await plugins.close()
    assert not plugins.connected
    [record] = [each for each in caplog.records if each.levelno == logging.ERROR]
    assert "66-liar is not accepted" in record.getMessage() and record.exc_info
