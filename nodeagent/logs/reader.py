"""Reading one file of a container's log: all of it, or its last lines."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import BinaryIO

from nodeagent.logs.lines import Line, parse_line

BLOCK = 64 << 10
#: Bytes of one line in a file; runtimes write parts of 16 KiB.
LINE_LIMIT = 1 << 20


def seek_to_tail(file: BinaryIO, count: int) -> int:
    """Places the file so that its last `count` lines are to come; says how many those are."""
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
                return count
    file.seek(0 if count > 0 else end)
    return found + 1 if end and count > 0 else 0


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
