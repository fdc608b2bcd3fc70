"""Plugins for NRI's tests: the scriptable one in Go (nri_plugin), as a process, and what it writes down.

async with NriPlugin(crid, "10") as plugin:
    plugin.script(adjust={"main": {"env": [{"key": "A", "value": "1"}]}})
    ...
    assert plugin.told(pod) == ["RunPodSandbox", ...]
"""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any, Self

from tests.support import peers
from tests.support.crid import Crid

SECONDS = 15.0


class NriPlugin:
    """One plugin process. Leaving the block ends it, and waits until crid knows."""

    def __init__(self, crid: Crid, index: str, *arguments: str, socket: Path | None = None) -> None:
        self._crid = crid
        self._index = index
        self._arguments = arguments
        self._socket = socket or crid.state / "nri.sock"
        self._base = Path(crid.base, f"plugin-{index}")
        self.log, self._script = self._base / "log", self._base / "script"
        self.process: subprocess.Popen[bytes] | None = None

    def script(self, **what: Any) -> None:
        """What it does from now on; see nri_plugin/main.go."""
        fresh = self._script.with_suffix(".new")
        fresh.write_text(json.dumps(what))
        fresh.rename(self._script)

    def start(self) -> None:
        program = peers.require("nri-plugin")
        command: list[str | Path] = [program, "-idx", self._index, "-socket", self._socket]
        command += ["-log", self.log, "-script", self._script]
        with (self._base / "output").open("ab") as output:
            self.process = subprocess.Popen([*command, *self._arguments], stdout=output, stderr=output)

    def events(self) -> list[dict[str, Any]]:
        """All that it was told, oldest first."""
        return [json.loads(line) for line in self.log.read_text().splitlines()] if self.log.exists() else []

    def told(self, *ids: str) -> list[str]:
        """The names of the events about these pods and containers."""
        return [each["event"] for each in self.events() if _id(each, "container") in ids or _id(each, "pod") in ids]

    def last(self, event: str) -> dict[str, Any]:
        return next(each for each in reversed(self.events()) if each["event"] == event)

    async def until(self, event: str, times: int = 1) -> dict[str, Any]:
        """Wait for an event: the last one of it."""
        deadline = time.monotonic() + SECONDS
        while sum(each["event"] == event for each in self.events()) < times:
            assert time.monotonic() < deadline, f"no {event}: {self.events()}\n{self._crid.tail()}"
            await asyncio.sleep(0.02)
        return self.last(event)

    async def logged(self, text: str) -> None:
        """Wait until crid's log says so of this plugin, by its name."""
        deadline = time.monotonic() + SECONDS
        line = f"NRI plugin {self._index}-test {text}"
        while line not in self._crid.log.read_text():
            assert time.monotonic() < deadline, f"crid never said: {line}\n{self._crid.tail()}"
            await asyncio.sleep(0.02)

    async def update(self) -> dict[str, Any]:
        """Let it ask for the updates of its script's "Unsolicited": crid's answer."""
        assert self.process is not None
        before = sum(each["event"] == "Updated" for each in self.events())
        self.process.send_signal(signal.SIGUSR1)
        return await self.until("Updated", before + 1)

    async def __aenter__(self) -> Self:
        self._base.mkdir(exist_ok=True)
        self.log.unlink(missing_ok=True)
        self._script.unlink(missing_ok=True)
        self._crid.log.write_text("")
        self.start()
        await self.until("Synchronize")
        await self.logged("is connected and synchronized")
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self.process is not None
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10)
        if self._crid.process is not None and self._crid.process.poll() is None:
            await self.logged("is gone")


def _id(event: dict[str, Any], kind: str) -> str:
    return str(event.get(kind, {}).get("id", ""))
