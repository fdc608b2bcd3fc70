"""Pages of memory that a fork is known to write, copied by one system call instead of one fault each.

After fork(2) parent and child share their memory, and the first write to each page stops the writer for a copy: two to
four microseconds, six hundred times between the fork of an interpreter and its execve. MADV_POPULATE_WRITE does the
same for a list of ranges in half the time. Which pages those are is found out by a process that goes through it before
anybody waits for it: what /proc/<pid>/pagemap says is mapped by it alone was written by it.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable, Iterator
from typing import Final

from runtime.linux.syscalls import madvise_self

MADV_POPULATE_WRITE: Final = 23
RANGES_MAX: Final = 1024  # UIO_MAXIOV
_PAGE: Final = os.sysconf("SC_PAGESIZE")
_ENTRY: Final = 8
# Bits of an entry (Documentation/admin-guide/mm/pagemap.rst): present, and mapped by this process alone.
_OWN: Final = 1 << 63 | 1 << 56
_RANGE: Final = struct.Struct("=QQ")  # struct iovec

#: Addresses of the first byte and of the one behind the last.
Areas = list[tuple[int, int]]


class Pages:
    """Pages by the addresses that they have in this process and in all its forks; none until learn()."""

    __slots__ = ("_ranges", "count")

    def __init__(self) -> None:
        #: how many ranges they are in
        self.count = 0
        self._ranges = ctypes.create_string_buffer(RANGES_MAX * _RANGE.size)

    def learn(self, fd: int) -> None:
        """Take what written() has returned, in another process, from a pipe that has all of it."""
        self.count = os.readv(fd, [self._ranges]) // _RANGE.size

    def copy(self) -> None:
        """Make them this process's own. A kernel that cannot do that copies them one by one, as ever."""
        if self.count:
            madvise_self(ctypes.addressof(self._ranges), self.count, MADV_POPULATE_WRITE)


def can_copy() -> bool:
    """Whether this kernel gives advice for lists of ranges, about the calling process (Linux 6.15)."""
    return madvise_self(None, 0, MADV_POPULATE_WRITE)


def private_areas() -> Areas:
    """Where this process's private memory is: what can be written without anybody else seeing it."""
    areas = []
    with open("/proc/self/maps") as lines:
        for line in lines:
            place, access, _ = line.split(None, 2)
            if access.startswith("rw") and access.endswith("p"):
                first, _, end = place.partition("-")
                areas.append((int(first, 16), int(end, 16)))
    return areas


def written(pagemap: int, areas: Areas) -> bytes:
    """The pages in `areas` that only the process of this open /proc/<pid>/pagemap has, for Pages.learn()."""
    numbers = sorted(number for first, end in areas for number in _own_pages(pagemap, first // _PAGE, end // _PAGE))
    ranges = [_RANGE.pack(first * _PAGE, count * _PAGE) for first, count in _runs(numbers)]
    return b"".join(ranges[:RANGES_MAX])


def _own_pages(pagemap: int, first: int, end: int) -> Iterator[int]:
    entries = memoryview(os.pread(pagemap, (end - first) * _ENTRY, first * _ENTRY)).cast("Q")
    return (first + place for place, entry in enumerate(entries) if entry & _OWN == _OWN)


def _runs(numbers: Iterable[int]) -> Iterator[tuple[int, int]]:
    """First number and length of each run of numbers without a gap."""
    first = end = -1
    for number in numbers:
        if number != end:
            if end > first:
                yield first, end - first
            first = number
        end = number + 1
    if end > first:
        yield first, end - first
