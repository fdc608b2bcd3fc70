"""The agent around a runtime in memory: what no real runtime does on demand."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from cri.client import CriClient
from nodeagent.agent import Agent
from nodeagent.config import Config
from nodeagent.node import Node
from tests.support.fake_cri import FakeCri


class Bench:
    """An agent on a fake runtime, with directories of its own; it can be killed and started again."""

    def __init__(self, place: Path, short: Path) -> None:
        self.cri = FakeCri()
        self.config = Config(
            root=place / "root",
            state=short,
            manifests=place / "manifests",
            kubelet_root=place / "kubelet",
            log_root=place / "logs",
        )
        for path in (self.config.root, self.config.manifests):
            path.mkdir()
        self.start()

    def start(self) -> None:
        node = Node("node-1", kubelet_root=self.config.kubelet_root, log_root=self.config.log_root)
        self.agent = Agent(self.config, node, cast(CriClient, self.cri))
        self.task = asyncio.create_task(self.agent.run())

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.wait({self.task})

    def put(self, document: dict[str, Any], file: str = "web.yaml") -> None:
        (self.config.manifests / file).write_text(json.dumps(document))

    def remove(self, file: str = "web.yaml") -> None:
        (self.config.manifests / file).unlink()

    def pod(self, name: str = "web") -> dict[str, Any]:
        found = [each for each in self.agent.documents() if each["metadata"]["name"] == name]
        return found[0] if found else {}

    def status(self, name: str = "web") -> dict[str, Any]:
        status: dict[str, Any] = self.pod(name).get("status", {})
        return status

    def state(self, of: str = "main", pod: str = "web") -> dict[str, Any]:
        status = self.status(pod)
        every = status.get("initContainerStatuses", []) + status.get("containerStatuses", [])
        return next((each["state"] for each in every if each["name"] == of), {})

    def running(self, name: str = "web") -> bool:
        return self.status(name).get("phase") == "Running"

    def waits_for(self, reason: str, of: str = "main", pod: str = "web") -> bool:
        return bool(self.state(of, pod).get("waiting", {}).get("reason") == reason)

    def reasons(self) -> list[str]:
        return [entry.reason for entry in self.agent.journal.since(0)]

    async def until(self, right: Callable[[], Any], patience: float = 10) -> None:
        try:
            async with asyncio.timeout(patience):
                while not right():
                    assert not self.task.done(), self.task.exception()
                    await asyncio.sleep(0.01)
        except TimeoutError:
            told = [f"{entry.reason}: {entry.message}" for entry in self.agent.journal.since(0)]
            raise AssertionError(json.dumps({"pods": list(self.agent.documents()), "told": told}, indent=1)) from None
