"""A file system that hangs costs one request its deadline, and nobody else anything."""

from __future__ import annotations

import threading

import pytest

from cri.server.errors import Exhausted
from cri.server.specs import sources


async def test_answers_and_errors_come_back() -> None:
    assert await sources.look(lambda a, b: a + b, 1, 2) == 3
    with pytest.raises(FileNotFoundError):
        await sources.look(open, "/no/such/file")
    assert sources._looking == set()


async def test_what_hangs_is_given_up_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "SECONDS", 0.05)
    monkeypatch.setattr(sources, "LIMIT", 2)
    release = threading.Event()
    try:
        for _ in range(2):
            with pytest.raises(TimeoutError, match="file system that hangs"):
                await sources.look(release.wait, 20)
        with pytest.raises(Exhausted, match="2 looks"):
            await sources.look(len, "")
    finally:
        release.set()
