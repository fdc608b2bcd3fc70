"""An agent of its own for each test, whose waiting is short."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from nodeagent.sync import backoff, eviction, runtime_events
from tests.support.agent_bench import Bench


@pytest.fixture
async def bench(tmp_path: Path, short_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    monkeypatch.setattr(backoff, "FIRST", 0.2)
    monkeypatch.setattr(runtime_events, "SETTLE", 0.2)
    monkeypatch.setattr(eviction, "EVERY", 0.1)
    made = Bench(tmp_path, short_path)
    yield made
    await made.stop()
