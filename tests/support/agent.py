"""An agent for tests: a real process on any CRI runtime, with directories that nobody else has."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nodeagent.api.client import AgentUnreachable, get
from runtime.linux.failpoints import VARIABLE as FAILPOINTS
from runtime.linux.ledger import Effect, read_ledger

ROOT = Path(__file__).parents[2]
PATIENCE = 20.0


class Agent:
    """An agent process on the runtime at `cri`; `cgroup_root` keeps its pods apart from those of others."""

    def __init__(self, base: Path, cri: str, cgroup_root: str) -> None:
        self.base = base
        self.root, self.state = base / "root", base / "state"
        self.manifests = base / "manifests"
        self.manifests.mkdir()
        self.kubelet_root, self.log_root = base / "kubelet", base / "pods"
        self.socket = self.state / "agent.sock"
        self._cri = cri
        self._cgroup_root = cgroup_root
        self.agent: subprocess.Popen[bytes] | None = None
        self.agent_log = base / "agent.log"
        self.others: list[subprocess.Popen[bytes]] = []

    async def start_agent(self, failpoints: str = "", *flags: str) -> None:
        """Start it, and wait until it has read its manifests and met the runtime."""
        self.spawn_agent(failpoints, *flags)
        assert self.agent is not None
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            assert self.agent.poll() is None, f"the agent ended with {self.agent.returncode}:\n{self.tail()}"
            with contextlib.suppress(AgentUnreachable):
                if (await self.ask("/healthz"))["healthy"]:
                    return
            await asyncio.sleep(0.02)
        raise AssertionError(f"the agent is not healthy:\n{self.tail()}")

    def spawn_agent(self, failpoints: str = "", *flags: str) -> None:
        """Start it without waiting; a failpoint may end it at once."""
        command = [
            sys.executable, "-m", "nodeagent.daemon", "--root", str(self.root), "--state", str(self.state),
            "--manifests", str(self.manifests), "--kubelet-root", str(self.kubelet_root),
            "--log-root", str(self.log_root), "--node-name", "node-1",
            "--cri", self._cri, "--cgroup-root", self._cgroup_root, *flags,
        ]  # fmt: skip
        env = os.environ | {FAILPOINTS: failpoints}
        with self.agent_log.open("ab") as log:
            self.agent = subprocess.Popen(command, cwd=ROOT, env=env, stdout=log, stderr=log, start_new_session=True)

    def kill_agent(self) -> None:
        """SIGKILL and reap: a crash."""
        assert self.agent is not None
        self.agent.kill()
        self.agent.wait(10)

    async def stop_agent(self) -> int:
        """SIGTERM; its exit status."""
        assert self.agent is not None
        self.agent.send_signal(signal.SIGTERM)
        return await asyncio.to_thread(self.agent.wait, PATIENCE)

    async def agent_died(self) -> None:
        """Wait until it has ended by itself (a failpoint)."""
        assert self.agent is not None
        await asyncio.to_thread(self.agent.wait, PATIENCE)

    def start_csi_driver(self) -> subprocess.Popen[bytes]:
        plugins = self.kubelet_root / "plugins" / "hostpath.csi.nodeagent"
        command = [
            sys.executable, "-m", "csi.hostpath.main", "--endpoint", f"unix://{plugins}/csi.sock",
            "--registration-dir", str(self.kubelet_root / "plugins_registry"), "--data-dir", str(self.base / "csi"),
        ]  # fmt: skip
        with (self.base / "csi.log").open("ab") as log:
            driver = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, start_new_session=True)
        self.others.append(driver)
        return driver

    def tail(self) -> str:
        """The end of its log."""
        return self.agent_log.read_text(errors="replace")[-4000:] if self.agent_log.exists() else ""

    def put(self, document: dict[str, Any], file: str = "web.yaml") -> None:
        temporary = self.manifests / f".{file}"
        temporary.write_text(json.dumps(document))
        temporary.rename(self.manifests / file)

    def remove(self, file: str = "web.yaml") -> None:
        (self.manifests / file).unlink()

    async def ask(self, resource: str) -> Any:
        return await asyncio.to_thread(get, self.socket, resource)

    async def pods(self) -> dict[str, dict[str, Any]]:
        """v1.Pods by name."""
        try:
            return {each["metadata"]["name"]: each for each in (await self.ask("/pods"))["items"]}
        except AgentUnreachable:
            return {}

    async def until(
        self, right: Callable[[dict[str, dict[str, Any]]], Any], patience: float = PATIENCE
    ) -> dict[str, dict[str, Any]]:
        """The pods, once they are as they should be."""
        deadline = time.monotonic() + patience
        while True:
            pods = await self.pods()
            with contextlib.suppress(KeyError, IndexError):
                if right(pods):
                    return pods
            if time.monotonic() > deadline:
                raise AssertionError(f"{json.dumps(pods, indent=1)}\n{self.tail()}")
            await asyncio.sleep(0.05)

    async def until_running(self, *names: str) -> dict[str, Any]:
        """The first of these pods, once all of them run."""
        pods = await self.until(lambda pods: all(pods[name]["status"]["phase"] == "Running" for name in names))
        return pods[names[0]]

    async def until_problems(self, *files: str) -> dict[str, dict[str, Any]]:
        """What is said of these files, once something is said of each."""
        deadline = time.monotonic() + PATIENCE
        while True:
            problems = {each["file"]: each for each in (await self.ask("/problems"))["items"]}
            if problems.keys() >= set(files):
                return problems
            assert time.monotonic() < deadline, f"{problems}\n{self.tail()}"
            await asyncio.sleep(0.05)

    async def until_gone(self) -> None:
        """No pod, and nothing left of one."""
        await self.until(lambda pods: not pods)
        deadline = time.monotonic() + PATIENCE
        while self.effects():
            assert time.monotonic() < deadline, f"{self.effects()}\n{self.tail()}"
            await asyncio.sleep(0.05)

    def effects(self) -> list[Effect]:
        """What stands in the ledger apart from images and the network."""
        entries = read_ledger(self.root / "ledger.db")
        return [each for each in entries if each.holder and not each.holder.startswith("network:")]

    async def close(self) -> None:
        """Ends all pods, and the processes."""
        try:
            for manifest in self.manifests.iterdir():
                manifest.unlink()
            if self.agent is None or self.agent.poll() is not None:
                await self.start_agent()
            await self.until_gone()
            assert await self.stop_agent() == 0, self.tail()
        finally:
            if self.agent is not None and self.agent.poll() is None:
                self.kill_agent()
            for process in self.others:
                process.terminate()
                process.wait(20)


def status_of(pods: dict[str, dict[str, Any]], container: str = "main", pod: str = "web") -> dict[str, Any]:
    """The v1.ContainerStatus; raises KeyError or IndexError while there is none."""
    status = pods[pod]["status"]
    every = [*status.get("initContainerStatuses", []), *status["containerStatuses"]]
    return next(iter([each for each in every if each["name"] == container]))


def waits_for(pods: dict[str, dict[str, Any]], reason: str, container: str = "main", pod: str = "web") -> bool:
    return bool(status_of(pods, container, pod)["state"].get("waiting", {}).get("reason") == reason)
