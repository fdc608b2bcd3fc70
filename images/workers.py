"""Threads for what blocks: the event loop never waits for a disk."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


class Workers:
    """A pool of threads of one store, for what the disk alone decides the time of."""

    def __init__(self, count: int) -> None:
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="images")

    async def run(self, work: Callable[[], T]) -> T:
        """What work() returns or raises; a cancelled call waits for it, as its caller is about to clean up."""
        return await _outcome(asyncio.get_running_loop().run_in_executor(self._pool, work), None)

    def close(self) -> None:
        """Wait for the threads to end; nothing may run any more."""
        self._pool.shutdown()


async def in_own_thread(work: Callable[[], T], stop: Callable[[], None]) -> T:
    """The same for work that waits for others, a registry say, which would use up the pool that they need too.

    A cancelled call tells it to stop().
    """
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001 - raised where the outcome is awaited
            future.set_exception(error)

    threading.Thread(target=run, name="unpack", daemon=True).start()
    return await _outcome(asyncio.wrap_future(future), stop)


async def _outcome(future: asyncio.Future[T], stop: Callable[[], None] | None) -> T:
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        if stop is not None:
            stop()
        await asyncio.wait([future])
        if not future.cancelled():
            future.exception()  # the cancellation is the news; asyncio would complain about an unseen error
        raise
