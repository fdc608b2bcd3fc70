"""Threads for what blocks: the event loop never waits for a disk."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


class Workers:
    """A pool of threads of one store; run() is for its event loop."""

    def __init__(self, count: int) -> None:
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="images")

    async def run(self, work: Callable[[], T], stop: Callable[[], None] | None = None) -> T:
        """What work() returns or raises, in a thread.

        A cancelled call still waits for the thread, since its caller is about to clean up what the thread uses;
        `stop` is called then, to make that short.
        """
        future = asyncio.get_running_loop().run_in_executor(self._pool, work)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            if stop is not None:
                stop()
            await asyncio.wait([future])
            if not future.cancelled():
                future.exception()  # the cancellation is the news; asyncio would complain about an unseen error
            raise

    def close(self) -> None:
        """Wait for the threads to end; nothing may run any more."""
        self._pool.shutdown()
