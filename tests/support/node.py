"""A node for tests: a real crid with a busybox image, and a real agent.

    async with running_node() as node:
        node.put(manifest("web", container(command=["sleep", "60"])))
        await node.until_running("web")
        node.kill_agent(); await node.start_agent()

Leaving the block ends all pods and both daemons, also when the test failed.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

from tests.support.agent import ROOT, Agent
from tests.support.crid import Crid

#: What tests.support.pods.container() asks for.
IMAGE = "localhost/busybox:1"


class Node(Agent):
    def __init__(self, base: Path) -> None:
        self.crid = Crid(base)
        super().__init__(base, str(self.crid.socket), f"/{self.crid.bridge}")

    async def start(self) -> None:
        command = [sys.executable, "-m", "cri.server.main", "import", "--config", str(self.crid.config)]
        await asyncio.to_thread(subprocess.run, [*command, "--busybox", IMAGE], cwd=ROOT, check=True, timeout=60)
        await self.crid.start()
        await self.start_agent()

    def tail(self) -> str:
        return f"--- agent\n{super().tail()}\n--- crid\n{self.crid.tail(3000)}"

    async def close(self) -> None:
        try:
            await super().close()
        finally:
            await self.crid.close()


@contextlib.asynccontextmanager
async def running_node() -> AsyncIterator[Node]:
    base = Path(tempfile.mkdtemp(dir="/tmp", prefix="na-"))
    node = Node(base)
    try:
        await node.start()
        yield node
    except BaseException:
        print(node.tail(), file=sys.stderr)
        raise
    finally:
        try:
            await node.close()
        finally:
            shutil.rmtree(base)
