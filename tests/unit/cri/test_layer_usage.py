"""Sizes of writable layers: measured seldom, never twice for what has come to rest, and nobody waits long."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import Any

import pytest

from cri.server.usage import layers as layer_usage
from cri.server.usage.layers import LayerUsage


class Layers:
    """The part of an ImageStore that is asked: a thousand bytes each, and how often it was asked."""

    def __init__(self) -> None:
        self.containers = self
        self.asked: list[str] = []
        self.stuck = asyncio.Event()

    async def usage(self, key: str) -> Any:
        self.asked.append(key)
        if key == "stuck":
            await self.stuck.wait()
        return SimpleNamespace(path="/", bytes=1000, inodes=3)


@pytest.fixture
def layers() -> Layers:
    return Layers()


@pytest.fixture
def usage(layers: Layers, monkeypatch: pytest.MonkeyPatch) -> LayerUsage:
    monkeypatch.setattr(layer_usage, "MAX_AGE", 0.0)
    monkeypatch.setattr(layer_usage, "PATIENCE", 0.05)
    return LayerUsage(layers)  # type: ignore[arg-type]


async def settle(usage: LayerUsage) -> None:
    await asyncio.gather(*usage._under_way.values())
    await asyncio.sleep(0)


async def test_what_has_come_to_rest_is_measured_once(usage: LayerUsage, layers: Layers) -> None:
    await usage.measured(["key"])
    for _ in range(3):
        usage.of("key")
        await settle(usage)
    assert len(layers.asked) == 4
    ended = time.time_ns()
    for _ in range(4):
        usage.of("key", ended)
        await settle(usage)
    assert len(layers.asked) == 5, "once more after its end"


async def test_a_sum_does_not_wait_for_one_that_hangs(usage: LayerUsage, layers: Layers) -> None:
    assert await usage.total({}) == (0, 0)
    assert await usage.total({"a": 0, "stuck": 0, "b": 7}) == (2000, 6)
    layers.stuck.set()
    await settle(usage)
    assert await usage.total({"a": 0, "stuck": 0, "b": 7}) == (3000, 9)


async def test_an_answer_waits_once_for_all_of_it_and_one_that_hangs_is_left_out(
    usage: LayerUsage, layers: Layers
) -> None:
    keys = ["a", "stuck", "b"]
    await asyncio.wait_for(usage.measured(keys), 10)
    assert [known.used_bytes.value if (known := usage.of(key)) else None for key in keys] == [1000, None, 1000]
    layers.stuck.set()
    await settle(usage)
    assert usage.of("stuck") is not None


async def test_what_is_forgotten_while_it_is_measured_stays_forgotten(usage: LayerUsage, layers: Layers) -> None:
    asking = asyncio.create_task(usage.measured(["stuck"]))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    usage.forget("stuck")
    layers.stuck.set()
    await asking
    assert usage.of("stuck") is None
