"""Looking at file systems that may hang: sources of mounts, devices, log directories, on storage that is not ours.

A thread inside a system call on a dead NFS server cannot be stopped, neither by a deadline nor by the end of a process
that waits for its thread pools. So each look has a daemon thread of its own, their number is bounded, and what hangs
keeps one request waiting until its deadline, and nothing else ever.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from cri.server.errors import Exhausted

SECONDS = 60.0
LIMIT = 64

T = TypeVar("T")
_looking: set[threading.Thread] = set()


async def look(call: Callable[..., T], *arguments: Any) -> T:
    """What `call` returns or raises; TimeoutError after SECONDS, Exhausted while LIMIT earlier looks hang."""
    if len(_looking) >= LIMIT:
        raise Exhausted(f"{LIMIT} looks at mount sources hang; unmount the file system that does not answer")
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[T] = loop.create_future()

    def run() -> None:
        tell: Callable[[Any], None]
        what: Any
        try:
            result = call(*arguments)
        except BaseException as error:  # noqa: BLE001 - it is raised where it is waited for
            tell, what = answer.set_exception, error
        else:
            tell, what = answer.set_result, result
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(_settle, thread, answer, tell, what)

    thread = threading.Thread(target=run, name="look", daemon=True)
    _looking.add(thread)
    thread.start()
    try:
        async with asyncio.timeout(SECONDS):
            return await answer
    except TimeoutError:
        raise TimeoutError(
            f"the container's mount sources, devices or log directory did not answer within {SECONDS:g} s; "
            "one of them is on a file system that hangs"
        ) from None


def _settle(thread: threading.Thread, answer: asyncio.Future[T], tell: Callable[[Any], None], what: Any) -> None:
    _looking.discard(thread)
    if not answer.done():
        tell(what)
