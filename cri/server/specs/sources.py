"""Looking at file systems that may hang: sources of mounts, devices, log directories, on storage that is not ours.

A thread inside a system call on a dead NFS server cannot be stopped, neither by a deadline nor by the end of a process
that waits for its thread pools. So each look has a daemon thread of its own, and what hangs keeps one request waiting
until its deadline. A client tries again and again, so an owner, a pod say, gets no third thread while two of his hang;
the others go on, until so many hang that something is wrong with the whole node.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any, TypeVar

from cri.server.errors import Exhausted

SECONDS = 60.0
#: Looks that hang, of one owner and of all together.
OWN_LIMIT, LIMIT = 2, 512
#: Looks at one time that nobody has given up yet; others wait for their turn.
AT_ONCE = 64

T = TypeVar("T")
_slots = asyncio.Semaphore(AT_ONCE)
_hanging: Counter[str] = Counter()


async def look(owner: str, call: Callable[..., T], *arguments: Any, seconds: float | None = None) -> T:
    """What `call` returns or raises; `owner` is whose file systems it looks at: a sandbox's id, a directory.

    Raises TimeoutError after `seconds` (SECONDS), Exhausted while OWN_LIMIT earlier looks of this owner hang.
    """
    if _hanging[owner] >= OWN_LIMIT or _hanging.total() >= LIMIT:
        raise Exhausted(
            f"{_hanging[owner]} earlier looks of the same kind hang, {_hanging.total()} on the whole node; unmount the "
            "file system that does not answer"
        )
    limit = SECONDS if seconds is None else seconds
    try:
        async with asyncio.timeout(limit), _slots:
            return await _in_thread(owner, call, arguments)
    except TimeoutError:
        raise TimeoutError(
            f"a mount's source, a device or a directory that the request names did not answer within {limit:g} s; it "
            "is on a file system that hangs"
        ) from None


async def _in_thread(owner: str, call: Callable[..., T], arguments: tuple[Any, ...]) -> T:
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
            loop.call_soon_threadsafe(_settle, owner, answer, tell, what)

    threading.Thread(target=run, name="look", daemon=True).start()
    try:
        return await answer
    finally:
        if answer.cancelled():
            _hanging[owner] += 1


def _settle(owner: str, answer: asyncio.Future[T], tell: Callable[[Any], None], what: Any) -> None:
    if not answer.cancelled():
        tell(what)
    elif _hanging[owner] > 1:
        _hanging[owner] -= 1
    else:
        del _hanging[owner]
