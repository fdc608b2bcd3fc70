"""Repeated requests join what is under way, and no client ends it by leaving."""

from __future__ import annotations

import asyncio

import pytest

from cri.server.errors import AlreadyExists
from cri.server.joins import Joins


async def test_a_second_request_gets_the_first_ones_outcome() -> None:
    joins: Joins[str] = Joins("pod sandbox")
    made = []
    release = asyncio.Event()

    async def make() -> str:
        made.append(1)
        await release.wait()
        return "id"

    first = asyncio.create_task(joins.run("key", b"same", make))
    second = asyncio.create_task(joins.run("key", b"same", make))
    await asyncio.sleep(0)
    first.cancel()
    release.set()
    assert await second == "id"
    assert made == [1]
    assert await joins.run("key", b"other", make) == "id"


async def test_other_words_for_the_same_key_are_refused() -> None:
    joins: Joins[str] = Joins("pod sandbox")
    release = asyncio.Event()

    async def make() -> str:
        await release.wait()
        raise RuntimeError("boom")

    first = asyncio.create_task(joins.run("key", b"one", make))
    await asyncio.sleep(0)
    with pytest.raises(AlreadyExists, match="another configuration"):
        await joins.run("key", b"two", make)
    release.set()
    with pytest.raises(RuntimeError, match="boom"):
        await first


async def test_it_goes_on_when_everybody_has_left() -> None:
    joins: Joins[str] = Joins("pod sandbox")
    done = asyncio.Event()

    async def make() -> str:
        await asyncio.sleep(0.01)
        done.set()
        return "id"

    client = asyncio.create_task(joins.run("key", b"", make))
    await asyncio.sleep(0)
    client.cancel()
    await joins.settle(5)
    assert done.is_set()
