"""What was written before the last rotation: the files that were put aside, read as if the log were one.

    <n>.log.<time>.gz, <n>.log.<time>, <n>.log     oldest first; `kubectl logs` knows the last one only

They may be compressed or removed while they are looked for, and one that is damaged hides no other: it is told.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, cast

from nodeagent.logs.lines import Line, nanoseconds, parse_line
from nodeagent.logs.opening import open_log
from nodeagent.logs.reader import BLOCK, LINE_LIMIT, read_lines, seek_to_tail
from nodeagent.logs.rotation import rotated

GZIP = ".gz"
DAMAGED = (EOFError, gzip.BadGzipFile, zlib.error)
Tell = Callable[[str], None]


def read_log(path: Path, newest: BinaryIO, tell: Tell, tail: int | None = None, since: int = 0) -> Iterator[Line]:
    """Every line on disk up to the end of `newest`, the open file; the last `tail` of them; of files from `since` on.

    `since` is in ns since the epoch and spares the reading of files that ended before; `tell` hears of damage.
    """
    with contextlib.ExitStack() as stack:
        left = None if tail is None else tail - seek_to_tail(newest, tail)
        older: list[tuple[Path, BinaryIO]] = []
        for each in reversed(_put_aside(path, newest)):
            if left == 0 or (file := _open(each)) is None:
                continue
            stack.enter_context(file)
            if os.fstat(file.fileno()).st_mtime_ns < since:
                break
            left = None if left is None else left - _seek(file, left)
            older.append((each, file))
        for each, file in reversed(older):
            with _damage_told(each, tell):
                yield from read_lines(file)
        yield from read_lines(newest)


def read_missed(path: Path, newest: BinaryIO, tell: Tell, last: int) -> Iterator[Line]:
    """Lines of files that were put aside, whole, after the line of the time `last` was read and before `newest`."""
    for each in _put_aside(path, newest):
        if (file := _open(each)) is None:
            continue
        with file, _damage_told(each, tell):
            first = parse_line(file.readline(LINE_LIMIT))
            if first is not None and nanoseconds(first.time.decode("ascii", "replace")) > last:
                file.seek(0)
                yield from read_lines(file)


def _put_aside(path: Path, newest: BinaryIO) -> list[Path]:
    """Oldest first. `newest` may have been put aside since it was opened."""
    there = rotated(path)
    plain = {each.name for each in there}
    own = os.fstat(newest.fileno())
    # While a file is compressed, both stand there for a moment.
    return [each for each in there if not _twin(each, plain) and not _is(each, own)]


def _twin(path: Path, names: set[str]) -> bool:
    return path.suffix == GZIP and path.stem in names


def _is(path: Path, status: os.stat_result) -> bool:
    try:
        return os.path.samestat(path.stat(), status)
    except FileNotFoundError:
        return False


def _open(path: Path) -> BinaryIO | None:
    """None for one that was removed meanwhile; one that was compressed meanwhile has another name."""
    with contextlib.suppress(FileNotFoundError):
        if path.suffix != GZIP:
            return open_log(path)
        with open_log(path) as file:
            return cast(BinaryIO, gzip.open(f"/proc/self/fd/{file.fileno()}"))
    return None if path.suffix == GZIP else _open(path.with_name(path.name + GZIP))


def _seek(file: BinaryIO, count: int) -> int:
    """seek_to_tail() for both kinds; a compressed file is read twice rather than held in memory."""
    if not isinstance(file, gzip.GzipFile):
        return seek_to_tail(file, count)
    lines = 0
    with contextlib.suppress(*DAMAGED):  # told when it is read
        while block := file.read(BLOCK):
            lines += block.count(b"\n")
    file.seek(0)
    for _ in range(max(lines - count, 0)):
        file.readline()
    return min(lines, count)


@contextlib.contextmanager
def _damage_told(path: Path, tell: Tell) -> Iterator[None]:
    try:
        yield
    except DAMAGED as error:
        tell(f"{path} is damaged, its rest is left out: {error}")
