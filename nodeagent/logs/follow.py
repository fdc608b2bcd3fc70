"""Following a container's log over rotations until the container has ended."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from asyncinotify import Inotify, Mask

from nodeagent.logs.lines import Line, nanoseconds
from nodeagent.logs.opening import open_log
from nodeagent.logs.past import Tell, read_log, read_missed
from nodeagent.logs.reader import read_lines

#: Seconds after which a quiet log's container is asked whether it still runs.
LOOK = 1.0
_MASK = Mask.MODIFY | Mask.CREATE | Mask.MOVED_TO | Mask.MOVED_FROM | Mask.DELETE


async def follow(
    path: Path, running: Callable[[], Awaitable[bool]], tell: Tell, tail: int | None = None, since: int = 0
) -> AsyncIterator[Line]:
    """What read_log() gives, then lines as they come, until the container has ended and all was read. Raises OSError.

    A reader that was slow over several rotations misses only what was removed.
    """
    with Inotify() as inotify:
        inotify.add_watch(path.parent, _MASK)
        log = _Followed(path, tell)
        try:
            for line in log.noted(read_log(path, log.file, tell, tail, since)):
                yield line
            alive = True
            while True:
                for line in log.noted(read_lines(log.file)):
                    yield line
                if (successor := log.successor()) is not None:
                    for line in log.noted(log.until(successor)):
                        yield line
                elif not alive:
                    return
                elif not await _something(inotify, path.name):
                    alive = await running()
        finally:
            log.file.close()


class _Followed:
    """A log's file that is read, and when the last line of it was written."""

    def __init__(self, path: Path, tell: Tell) -> None:
        self.file: BinaryIO = open_log(path)
        self._path = path
        self._tell = tell
        self._started = time.time_ns()
        self._last = b""

    def noted(self, lines: Iterator[Line]) -> Iterator[Line]:
        for line in lines:
            self._last = line.time
            yield line

    def successor(self) -> BinaryIO | None:
        """The file that has taken this one's name, once the runtime writes there."""
        try:
            fresh = open_log(self._path)
        except FileNotFoundError:
            return None
        if os.path.sameopenfile(fresh.fileno(), self.file.fileno()):
            fresh.close()
            return None
        return fresh

    def until(self, successor: BinaryIO) -> Iterator[Line]:
        """The rest of the file, and of those between it and its successor, which is the file from then on."""
        with self.file as ended:
            self.file = successor
            yield from read_lines(ended)
        last = nanoseconds(self._last.decode("ascii", "replace")) or self._started
        yield from read_missed(self._path, successor, self._tell, last)


async def _something(inotify: Inotify, name: str) -> bool:
    """Whether the log was touched within LOOK seconds. A lost event costs one such pause, no line."""
    try:
        async with asyncio.timeout(LOOK):
            # Logs of other containers may be in the same directory.
            while (event := await inotify.get()).name is not None and str(event.name) != name:
                pass
    except TimeoutError:
        return False
    return True
