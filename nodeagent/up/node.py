"""The daemons of a node under one supervisor, step by step, and what its agent says of its pods."""

from __future__ import annotations

import asyncio
import shlex
import subprocess
import time
from typing import Any

from nodeagent.api.client import AgentUnreachable, get
from nodeagent.up.places import Places
from nodeagent.up.service import Service
from nodeagent.up.show import Show
from nodeagent.up.supervisor import Supervisor

LOOK = 0.2
VERB_TIMEOUT = 300.0


class Trouble(Exception):
    """The node cannot be brought up or down; the message says why and what to do."""


class RunningNode:
    """The daemons of one node, each started and awaited with a line to the operator."""

    def __init__(self, places: Places, supervisor: Supervisor, show: Show) -> None:
        self.places = places
        self.supervisor = supervisor
        self._show = show

    async def start_runtime(self) -> None:
        with self._show.step("container runtime") as said:
            await self._start("crid", self.places.crid())
            said.append(f"crid on {self.places.cri_socket}")

    async def start_csi_driver(self) -> None:
        with self._show.step("storage driver") as said:
            await self._start("csi-hostpath", self.places.csi_driver())
            said.append(f"CSI driver in {self.places.kubelet_root / 'plugins_registry'}")

    async def start_agent(self, **arguments: Any) -> None:
        with self._show.step("node agent") as said:
            await self._start("nodeagent", self.places.agent(**arguments))
            said.append(f"status on {self.places.agent_socket}")

    async def stop_daemons(self) -> None:
        with self._show.step("daemons stopped"):
            await self.supervisor.stop_all()

    async def _start(self, name: str, command: list[str]) -> None:
        log = self.places.logs / f"{name}.log"
        await self.supervisor.start(Service(name, command, log, self._show.warn))

    async def pods(self) -> list[dict[str, Any]]:
        """v1.Pods with status; none while the agent is being restarted."""
        try:
            answer = await asyncio.to_thread(get, self.places.agent_socket, "/pods")
        except AgentUnreachable:
            return []
        return list(answer["items"])

    async def health(self) -> dict[str, Any]:
        try:
            return dict(await asyncio.to_thread(get, self.places.agent_socket, "/healthz"))
        except AgentUnreachable as error:
            return {"healthy": False, "problem": str(error)}

    async def all_gone(self, patience: float) -> list[str]:
        """Wait until the agent has ended all pods and undone what they had: what is left after `patience`."""
        deadline = time.monotonic() + patience
        left = ["the agent does not answer"]
        while time.monotonic() < deadline:
            if (await self.health())["healthy"]:
                pods = await self._keys()
                # Asked after the pods: what a pod had begins to be undone just before it leaves their list.
                health = await self.health()
                left = [f"pod {key}" for key in pods]
                left += [f"volumes or files of pod {uid}" for uid in health.get("pendingTeardowns", [])]
                if not left and health["healthy"]:
                    return []
            await asyncio.sleep(LOOK)
        return left

    async def _keys(self) -> list[str]:
        return [f"{pod['metadata']['namespace']}/{pod['metadata']['name']}" for pod in await self.pods()]

    async def crid_verb(self, *verb: str) -> str:
        """A verb of a crid that does not run; its output. Raises Trouble."""
        words = self.places.crid(*verb)
        try:
            done = await self.supervisor.command(words, VERB_TIMEOUT)
        except subprocess.TimeoutExpired:
            raise Trouble(f"{shlex.join(words)} did not end within {VERB_TIMEOUT:.0f} s and was killed") from None
        if done.returncode:
            raise Trouble(done.stderr.strip()[-2000:] or f"crid {verb[0]} failed with status {done.returncode}")
        return done.stdout.strip()
