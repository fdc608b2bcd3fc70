"""Paths that clients and plugins name may be on a file system that hangs: that costs the one call its deadline.

The event loop and the pool of threads that all calls share are not what looks at them.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import AsyncMock, MagicMock

import pytest

from cri.proto import api_pb2 as api
from cri.proto import nri_pb2 as nri
from cri.server.calls import checkpoint_container, checkpoint_pod, restore_pod
from cri.server.checkpoint import archive, origin, workplace
from cri.server.joins import Joins
from cri.server.nri import adjusting
from cri.server.nri.errors import NriFault
from cri.server.nri.owners import Owners
from cri.server.specs import sources
from runtime.linux.ledger import Ledger

Call = Callable[[Any], Awaitable[Any]]
HOST = nri.ContainerAdjustment(hooks={"create_runtime": [{"path": "/dead/hook"}]})
ELSEWHERE = nri.ContainerAdjustment(linux={"namespaces": [{"type": "network", "path": "/dead/ns"}]})


@pytest.fixture
def dead(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """What every call of it does: hang, for as long as the test lasts; it is given up soon."""
    monkeypatch.setattr(sources, "SECONDS", 0.05)
    monkeypatch.setattr(sources, "_hanging", Counter())
    over = threading.Event()
    yield lambda *_, **__: over.wait(20)
    over.set()


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Any]:
    ledger = Ledger(tmp_path / "ledger.db", "test")
    config = SimpleNamespace(root=tmp_path, checkpoint=SimpleNamespace(limit=1 << 20))
    made: dict[str, Any] = {"store": MagicMock(), "criu": AsyncMock(), "ledger": ledger, "config": config}
    yield SimpleNamespace(**made, restores_under_way=Joins("pod sandbox"))
    ledger.close()


async def restore_a_container(daemon: Any) -> None:
    config = api.ContainerConfig(image={"image": "/dead/one.tar"})
    await origin.unpack(daemon, MagicMock(runtime=None), "c", config)


CALLS: list[tuple[Any, str, Call]] = [
    (
        checkpoint_container,
        "check_location",
        lambda daemon: checkpoint_container.checkpoint_container(
            daemon, api.CheckpointContainerRequest(container_id="c", location="/dead/one.tar")
        ),
    ),
    (
        checkpoint_pod,
        "_check_directory",
        lambda daemon: checkpoint_pod.checkpoint_pod(
            daemon, api.CheckpointPodRequest(pod_sandbox_id="s", output_path="/dead", container_ids=["c"])
        ),
    ),
    (
        restore_pod,
        "_archives",
        lambda daemon: restore_pod.restore_pod(daemon, api.RestorePodRequest(checkpoint_path="/dead")),
    ),
    (archive, "open_archive", restore_a_container),
]


@pytest.mark.parametrize(("module", "name", "call"), CALLS)
async def test_calls(
    daemon: Any, dead: Callable[..., None], monkeypatch: pytest.MonkeyPatch, module: Any, name: str, call: Call
) -> None:
    monkeypatch.setattr(checkpoint_pod, "_containers", lambda *_: [])
    monkeypatch.setattr(origin, "UNPACK_SECONDS", 0.05, raising=False)
    monkeypatch.setattr(module, name, dead)
    async with asyncio.timeout(5):
        with pytest.raises(TimeoutError, match="did not answer within"):
            await call(daemon)


async def test_an_archive_that_cannot_be_removed_stays_in_the_ledger(
    daemon: Any, dead: Callable[..., None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    partial = tmp_path / ".one.tar.part"
    monkeypatch.setattr(workplace, "remove_tree", dead)
    monkeypatch.setattr(workplace.os, "unlink", dead)
    async with asyncio.timeout(5), workplace.partial(daemon, str(partial)):
        partial.touch()
    assert [entry.key for entry in daemon.ledger.entries("dir")] == [str(partial)]


@pytest.mark.parametrize(
    ("adjust", "runtime", "words"), [(HOST, {}, "adjusts OciHooks .*hangs"), (ELSEWHERE, None, "adjusts Namespace")]
)
async def test_plugins(
    dead: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    adjust: nri.ContainerAdjustment,
    runtime: Any,
    words: str,
) -> None:
    container: Any = SimpleNamespace(
        id="c",
        name="ns/pod/main",
        sandbox=SimpleNamespace(id="s", runtime=runtime),
        spec=SimpleNamespace(oci={"linux": {}}),
    )
    monkeypatch.setattr(adjusting.os.path, "exists", dead)
    async with asyncio.timeout(5):
        with pytest.raises(NriFault, match=words):
            await adjusting.Adjuster(MagicMock(), MagicMock()).apply(container, adjust, Owners())
