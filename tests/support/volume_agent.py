"""The agent's volume side as a process of its own, so that a test can kill it at any step.

    python -m tests.support.volume_agent KUBELET_ROOT LEDGER      one JSON request per line in, one answer per line out

Requests: {"do": "mount", "pod": {...}, "storage": [...]}, {"do": "unmount", "uid": ...},
{"do": "reconcile", "known": [...]}. Answers: {"ok": ...} or {"error": "..."}.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from nodeagent.plugins import PluginWatcher
from nodeagent.volumes.claims import ClaimIndex
from nodeagent.volumes.errors import VolumesError
from nodeagent.volumes.manager import VolumeManager
from runtime.linux.ledger import Ledger

ANSWER_TIMEOUT = 60.0


async def serve(root: Path, ledger: Ledger) -> None:
    manager = VolumeManager(root, ledger, work_timeout=10)
    watcher = PluginWatcher(manager.layout.registry, {"CSIPlugin": manager.drivers})
    await watcher.start()
    while line := await asyncio.to_thread(sys.stdin.readline):
        try:
            answer: dict[str, Any] = {"ok": await answered(manager, json.loads(line))}
        except VolumesError as error:
            answer = {"error": str(error)}
        print(json.dumps(answer), flush=True)
    await watcher.close()
    await manager.close()


async def answered(manager: VolumeManager, request: dict[str, Any]) -> Any:
    match request["do"]:
        case "mount":
            found = await manager.mount(request["pod"], ClaimIndex(request["storage"]))
            return {name: str(volume.host_path) for name, volume in found.items()}
        case "unmount":
            return await manager.unmount(request["uid"])
        case "reconcile":
            result = await manager.reconcile(request["known"])
            return {"undone": result.undone, "left": result.left, "strangers": [str(path) for path in result.strangers]}


class VolumeAgent:
    """The process from a test's side."""

    def __init__(self, root: Path, ledger: Path, failpoints: str = "") -> None:
        environment = {**os.environ, "NODEAGENT_FAILPOINTS": failpoints}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.volume_agent", str(root), str(ledger)],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, **request: Any) -> Any:
        """The answer; None when the process died over it. Raises AssertionError for an error."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            return None
        answer = json.loads(line)
        assert "error" not in answer, answer["error"]
        return answer["ok"]

    def kill(self) -> None:
        self._process.kill()
        self.wait()

    def wait(self) -> int:
        status = self._process.wait(ANSWER_TIMEOUT)
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None and not stream.closed:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
        return status


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), Ledger(Path(sys.argv[2]), "nodeagent")))
