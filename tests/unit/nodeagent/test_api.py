"""The status API on its socket: what it answers, and who may ask."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import pytest

from nodeagent.api import client
from nodeagent.api.server import StatusApi
from nodeagent.manifests.catalogue import FileProblem
from nodeagent.pods.pod import Key
from nodeagent.sync.journal import Journal


class Seen:
    def __init__(self) -> None:
        self.journal = Journal()
        self.healthy = True

    def documents(self) -> Iterable[dict[str, Any]]:
        return [{"metadata": {"namespace": "default", "name": name}, "status": {}} for name in ("b", "a")]

    def problems(self) -> Iterable[FileProblem]:
        return [FileProblem("a.yaml", "Required value", "spec", 3)]

    def health(self) -> dict[str, Any]:
        return {"healthy": self.healthy}


@pytest.fixture
async def served(short_path: Path) -> AsyncIterator[tuple[Seen, Path]]:
    seen, path = Seen(), short_path / "agent.sock"
    path.touch()
    api = StatusApi(seen, path)
    await api.start()
    yield seen, path
    await api.close()
    assert not path.exists()


async def get(path: Path, resource: str) -> Any:
    return await asyncio.to_thread(client.get, path, resource)


async def test_pods_problems_and_health(served: tuple[Seen, Path]) -> None:
    seen, path = served
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    answer = await get(path, "/pods")
    assert [item["metadata"]["name"] for item in answer["items"]] == ["a", "b"]
    assert (await get(path, "/pods/default/a"))["metadata"]["name"] == "a"
    with pytest.raises(client.AgentRefused, match="no pod default/x on this node"):
        await get(path, "/pods/default/x")
    (problem,) = (await get(path, "/problems"))["items"]
    assert problem == {"file": "a.yaml", "reason": "Required value", "path": "spec", "line": 3, "fatal": True}
    seen.healthy = False
    assert await get(path, "/healthz") == {"healthy": False}


async def test_events_wait_for_news(served: tuple[Seen, Path]) -> None:
    seen, path = served
    seen.journal.tell(Key("default", "a"), "Started", "container main")
    (first,) = (await get(path, "/events"))["items"]
    waiting = asyncio.create_task(get(path, f"/events?since={first['number']}&wait=10"))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    seen.journal.tell(Key("default", "a"), "Started", "container main")
    (again,) = (await waiting)["items"]
    assert (again["count"], again["reason"]) == (2, "Started")
    assert await get(path, f"/events?since={again['number']}&wait=0.01") == {"items": []}
    with pytest.raises(client.AgentRefused, match="since must be a whole number"):
        await get(path, "/events?since=x")


def test_an_agent_that_is_not_there_is_named(short_path: Path) -> None:
    with pytest.raises(
        client.AgentUnreachable, match=r"no node agent answers on .*; is it running\? see: nodeagent up"
    ):
        client.get(short_path / "agent.sock", "/pods")


def test_the_journal_counts_what_is_said_again_and_forgets_the_oldest() -> None:
    journal = Journal()
    for number in range(1200):
        journal.tell(Key("default", "a"), "Reason", f"message {number % 1100}")
    entries = journal.since(0)
    assert len(entries) == 1000
    assert entries[-1].message == "message 99"
