"""A file system that hangs costs one request its deadline, its owner further ones, and nobody else anything."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Iterator

import pytest

from cri.server.errors import Exhausted
from cri.server.specs import sources
from tests.support.processes import eventually


@pytest.fixture
def released(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """What hangs in a test does so until this is set, and is given up soon."""
    monkeypatch.setattr(sources, "SECONDS", 0.05)
    monkeypatch.setattr(sources, "_hanging", Counter())
    event = threading.Event()
    yield event
    event.set()


async def hangs(owner: str, released: threading.Event) -> None:
    with pytest.raises(TimeoutError, match="file system that hangs"):
        await sources.look(owner, released.wait, 20)


async def test_answers_and_errors_come_back() -> None:
    assert await sources.look("pod", lambda a, b: a + b, 1, 2) == 3
    with pytest.raises(FileNotFoundError):
        await sources.look("pod", open, "/no/such/file")
    assert not sources._hanging


async def test_what_hangs_is_its_owners_and_is_forgotten_when_it_answers(released: threading.Event) -> None:
    for _ in range(sources.OWN_LIMIT):
        await hangs("dead", released)
    with pytest.raises(Exhausted, match="2 earlier looks"):
        await sources.look("dead", len, "")
    assert await sources.look("other", len, "abc") == 3
    released.set()
    await eventually(lambda: not sources._hanging)
    assert await sources.look("dead", len, "abc") == 3


async def test_all_that_hangs_is_bounded(released: threading.Event, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "LIMIT", 2)
    for owner in ("one", "two"):
        await hangs(owner, released)
    with pytest.raises(Exhausted, match="2 on the whole node"):
        await sources.look("three", len, "")


async def test_many_at_once_wait_for_their_turn(released: threading.Event, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "SECONDS", 20)
    monkeypatch.setattr(sources, "_slots", asyncio.Semaphore(2))
    looks = [asyncio.create_task(sources.look("pod", released.wait, 20)) for _ in range(5)]
    await asyncio.sleep(0)
    assert sum(thread.name == "look" for thread in threading.enumerate()) == 2
    released.set()
    assert await asyncio.gather(*looks) == [True] * 5
