"""Processes of this machine, asked of /proc, and waiting for what another process does soon and tells nobody."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

PAUSE = 0.01


async def eventually(condition: Callable[[], object], seconds: float = 20.0) -> None:
    """Raises TimeoutError when the condition does not come true in time."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - there is no event to wait for: the kernel is asked
            await asyncio.sleep(PAUSE)


def children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]


def commanded(*words: str) -> list[int]:
    """The processes whose command line has these words, one after the other."""
    wanted = b"".join(b"\0" + word.encode() for word in words) + b"\0"
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if wanted in b"\0" + path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:  # it ended meanwhile
            continue
    return found
