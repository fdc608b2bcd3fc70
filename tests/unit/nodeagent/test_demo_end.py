"""The end of the demo, where the node does not play along: everything goes, and the operator is told the truth."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from nodeagent.up import node as module
from nodeagent.up.demo import demo_places, take_away
from nodeagent.up.node import RunningNode, Trouble
from nodeagent.up.show import Show
from nodeagent.up.supervisor import Supervisor


class Node:
    """A running node whose pod does not end; notes what is done to it."""

    def __init__(self, left: list[str]) -> None:
        self.supervisor = SimpleNamespace(services=[SimpleNamespace(name="nodeagent")])
        self.done: list[Any] = []
        self._left = left

    async def all_gone(self, patience: float) -> list[str]:
        return self._left

    async def stop_daemons(self) -> None:
        self.done.append("stopped")

    async def crid_verb(self, *verb: str) -> str:
        self.done.append(verb)
        return ""


async def test_a_pod_that_goes_between_two_questions_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOK", 0.01)
    pending = iter([[], ["u1"], ["u1"], ["u1"], ["u1"], [], []])
    asked: list[str] = []

    def get(socket: Path, resource: str) -> dict[str, Any]:
        asked.append(resource)
        return {"items": []} if resource == "/pods" else {"healthy": True, "pendingTeardowns": next(pending)}

    monkeypatch.setattr(module, "get", get)
    node = RunningNode(demo_places(tmp_path, tmp_path), cast(Supervisor, None), Show())
    assert await node.all_gone(10.0) == []
    assert asked.count("/healthz") >= 6, "it ended while something of the pod was still undone"


@pytest.mark.parametrize("left", [[], ["pod default/demo", "volumes or files of pod 7"]])
async def test_what_does_not_go_is_taken_away_and_told(tmp_path: Path, left: list[str]) -> None:
    base, state = tmp_path / "demo", tmp_path / "run"
    places = demo_places(base, state)
    for path in (places.manifests, state):
        path.mkdir(parents=True)
    node = Node(left)
    ending = take_away(base, places, cast(RunningNode, node), Show())
    if left:
        with pytest.raises(Trouble, match="by force, as it had not gone after 60 s: pod default/demo; volumes or"):
            await ending
    else:
        await ending
    assert node.done == ["stopped", ("reset", "--purge")]
    assert not base.exists() and not state.exists()
