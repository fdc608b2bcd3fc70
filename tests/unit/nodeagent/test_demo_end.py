"""The end of the demo, where the node does not play along: everything goes, and the operator is told the truth."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from nodeagent.up.demo import demo_places, take_away
from nodeagent.up.node import RunningNode, Trouble
from nodeagent.up.show import Show


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
