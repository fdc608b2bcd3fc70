"""Sandboxes that could not be made and not taken back at once: a CNI plugin that fails ADD often fails DEL too.

Nobody will ask for them again, since their RunPodSandbox has failed. So they are tried again here, less and less
often, and once more when crid stops; after a crash, recovery finds them in the ledger.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from cri.server.pods import Sandbox

log = logging.getLogger("crid")

FIRST_SECONDS, LAST_SECONDS = 10.0, 300.0


class Janitor:
    """Tries `take_back` until it succeeds."""

    def __init__(self) -> None:
        self._left: dict[str, tuple[Sandbox, Callable[[], Awaitable[None]]]] = {}
        self._task: asyncio.Task[None] | None = None

    def take(self, sandbox: Sandbox, take_back: Callable[[], Awaitable[None]]) -> None:
        """See to it that a sandbox goes; `take_back` is idempotent and raises what it could not undo."""
        self._left[sandbox.id] = sandbox, take_back
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        delay = FIRST_SECONDS
        while self._left:
            await asyncio.sleep(delay)
            await self.sweep()
            delay = min(2 * delay, LAST_SECONDS)

    async def sweep(self) -> None:
        """Try each once."""
        for id, (sandbox, take_back) in list(self._left.items()):
            try:
                await take_back()
            except Exception as error:  # noqa: BLE001 - whatever it is, it is tried again
                log.warning("sandbox %s of pod %s is still half-made: %s", id[:13], sandbox.name, error)
            else:
                del self._left[id]
                log.info("took back the half-made sandbox %s of pod %s", id[:13], sandbox.name)

    async def close(self) -> None:
        """A last try."""
        if self._task is not None:
            self._task.cancel()
        await self.sweep()
