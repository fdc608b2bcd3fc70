"""Blocking calls with a deadline, for file systems that may not answer.

A stat(2) or rmdir(2) on a dead NFS server blocks for ever, and no signal ends it. Such a call gets a thread of its own,
which is left behind at the deadline: in the loop's shared pool, a few of them would stop every other pod.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

#: Seconds for work on the node's own disk.
LOCAL = 30.0


async def within(seconds: float | None, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """What the function returns or raises, or TimeoutError; then it is still running, and may yet have its effect.

    None: for a caller that has a deadline of its own, or does something else meanwhile.
    """
    future: concurrent.futures.Future[R] = concurrent.futures.Future()
    future.set_running_or_notify_cancel()  # from now on nobody can cancel it under the thread's hands

    def run() -> None:
        try:
            future.set_result(function(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - carried over to the task that waits
            future.set_exception(error)

    # A daemon thread: one that never returns must not keep the agent from exiting.
    threading.Thread(target=run, name=f"volumes: {function.__name__}", daemon=True).start()
    outcome = asyncio.wrap_future(future)
    outcome.add_done_callback(_seen)
    done, _ = await asyncio.wait({outcome}, timeout=seconds)
    if not done:
        raise TimeoutError(f"{function.__name__} has not ended after {seconds:g} s: a file system does not answer")
    return outcome.result()


def _seen(outcome: asyncio.Future[R]) -> None:
    """A failure after the deadline is nobody's any more; asyncio would log it as forgotten."""
    if not outcome.cancelled():
        outcome.exception()
