"""Reading a container's log: its end, all of it, or following it over rotations until the container has ended."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from asyncinotify import Inotify, Mask

from nodeagent.logs.lines import Line, parse_line

BLOCK = 64 << 10
LINE_LIMIT = 1 << 20
"""Bytes of one line in a file; runtimes write parts of 16 KiB."""
LOOK = 1.0
"""Seconds after which a quiet log's container is asked whether it still runs."""
_MASK = Mask.MODIFY | Mask.CREATE | Mask.MOVED_TO | Mask.MOVED_FROM | Mask.DELETE


def seek_to_tail(file: BinaryIO, count: int) -> None:
    """Places the file so that its last `count` lines are to come."""
    end = position = file.seek(0, os.SEEK_END)
    found = 0
    while position > 0 and count > 0:
        step = min(BLOCK, position)
        position -= step
        file.seek(position)
        block = file.read(step)
        index = step
        while (index := block.rfind(b"\n", 0, index)) >= 0:
            begins_a_line = position + index + 1 < end
            found += begins_a_line
            if begins_a_line and found == count:
                file.seek(position + index + 1)
                return
    file.seek(0 if count > 0 else end)


def read_lines(file: BinaryIO) -> Iterator[Line]:
    """From where the file stands to its present end; a line that is still being written is left for later."""
    while True:
        start = file.tell()
        raw = file.readline(LINE_LIMIT)
        if not raw.endswith(b"\n") and len(raw) < LINE_LIMIT:
            file.seek(start)
            return
        line = parse_line(raw)
        if line is not None:
            yield line


async def follow(path: Path, running: Callable[[], Awaitable[bool]], tail: int | None = None) -> AsyncIterator[Line]:
    """Lines as they come, over rotations, until the container has ended and all was read. Raises OSError."""
    with Inotify() as inotify:
        inotify.add_watch(path.parent, _MASK)
        file = _open(path)
        try:
            if tail is not None:
                seek_to_tail(file, tail)
            alive = True
            while True:
                for line in read_lines(file):
                    yield line
                successor = _successor(path, file)
                if successor is not None:
                    for line in read_lines(file):
                        yield line
                    file.close()
                    file = successor
                elif not alive:
                    return
                elif not await _something(inotify, path.name):
                    alive = await running()
        finally:
            file.close()


def _open(path: Path) -> BinaryIO:
    return path.open("rb")


def _successor(path: Path, file: BinaryIO) -> BinaryIO | None:
    """The file that has taken this one's name, once the runtime writes there."""
    try:
        fresh = _open(path)
    except FileNotFoundError:
        return None
    if os.path.sameopenfile(fresh.fileno(), file.fileno()):
        fresh.close()
        return None
    return fresh


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
