"""CheckpointPod takes the locks of several containers, and so may another one at the same time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cri.server.calls import checkpoint_pod
from cri.server.store import Index


@contextlib.asynccontextmanager
async def paused(_: Any) -> AsyncIterator[None]:
    yield


async def test_two_of_one_pod_may_name_its_containers_in_any_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[str] = []

    async def take(_: Any, container: Any, *__: Any) -> None:
        taken.append(container.id)

    monkeypatch.setattr(checkpoint_pod, "paused", paused)
    monkeypatch.setattr(checkpoint_pod, "take", take)
    metadata = SimpleNamespace(name="pod", namespace="ns", uid="uid")
    sandbox = SimpleNamespace(id="p", config=SimpleNamespace(metadata=metadata))
    index: Index[Any] = Index("container")
    for id in ("a", "b"):
        config = SimpleNamespace(metadata=SimpleNamespace(name=id))
        index.add(SimpleNamespace(id=id, lock=asyncio.Lock(), config=config))
    daemon = SimpleNamespace(store=SimpleNamespace(containers=index))

    async def checkpoint(*ids: str) -> None:
        (directory := tmp_path / "".join(ids)).mkdir()
        await checkpoint_pod._take_all(daemon, sandbox, [index.get(id) for id in ids], "criu", directory)  # type: ignore[arg-type]

    async with asyncio.timeout(10), asyncio.TaskGroup() as both:
        async with index.get("a").lock:  # somebody starts or stops it when both come
            both.create_task(checkpoint("a", "b"))
            both.create_task(checkpoint("b", "a"))
            await asyncio.sleep(0)
    assert sorted(taken) == ["a", "a", "b", "b"]
