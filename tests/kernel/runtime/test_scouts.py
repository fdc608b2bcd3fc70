"""Pages that forks write: found out by those that go ahead, copied by those that come after, and nothing else left."""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from runtime.linux.pages import Areas, Pages, can_copy, written

PAGE = mmap.PAGESIZE
SCOUTING = """
import json, os
from runtime import exec, init
from runtime.scouts import send_scouts
from runtime.shim import builder

def world():
    mounts = [line for line in open("/proc/self/mountinfo") if line.split()[4] == "/run"]
    return mounts, os.readlink("/proc/self/ns/mnt"), sorted(os.listdir("/proc/self/fd"))

before = world()
send_scouts()
learned = [pages.count for pages in (builder.WRITTEN, init.WRITTEN, exec.WRITTEN)]
print(json.dumps({"learned": learned, "same": world() == before}))
"""

pytestmark = pytest.mark.skipif(not can_copy(), reason="process_madvise(2) knows no PIDFD_SELF here (Linux 6.15)")


@pytest.fixture
def memory() -> Iterator[mmap.mmap]:
    """Eight private pages, all of them written."""
    with mmap.mmap(-1, 8 * PAGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as area:
        area[:] = b"x" * len(area)
        yield area


def place(memory: mmap.mmap) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


def in_fork(work: Callable[[], bytes]) -> int:
    """The reading end of a pipe with what `work` returned in a fork, which has ended."""
    start, end = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.write(end, work())
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    os.close(end)
    return start


def own_pages(areas: Areas) -> bytes:
    pagemap = os.open("/proc/self/pagemap", os.O_RDONLY)
    return written(pagemap, areas)


def numbers_in(memory: mmap.mmap, answer: int) -> list[int]:
    """Which pages of the memory the ranges in a pipe are."""
    with open(answer, "rb") as pipe:
        words = memoryview(pipe.read()).cast("Q").tolist()
    return [
        (first - place(memory)) // PAGE + number
        for first, length in zip(words[::2], words[1::2], strict=True)
        for number in range(length // PAGE)
    ]


def test_what_a_fork_writes_is_found(memory: mmap.mmap) -> None:
    areas = [(place(memory), place(memory) + len(memory))]

    def write() -> bytes:
        for number in (1, 2, 6):
            memory[number * PAGE] = 0
        return own_pages(areas)

    assert numbers_in(memory, in_fork(write)) == [1, 2, 6]


def test_the_next_fork_has_copies_before_it_writes(memory: mmap.mmap) -> None:
    areas = [(place(memory), place(memory) + len(memory))]
    pages = Pages()

    def write() -> bytes:
        memory[3 * PAGE] = 0
        return own_pages(areas)

    def copy() -> bytes:
        pages.copy()
        return own_pages(areas)

    assert numbers_in(memory, in_fork(copy)) == []
    answer = in_fork(write)
    pages.learn(answer)
    os.close(answer)
    assert (pages.count, numbers_in(memory, in_fork(copy))) == (1, [3])


def test_pages_that_are_not_there_any_more_harm_nobody() -> None:
    start, end = os.pipe()
    os.write(end, (PAGE).to_bytes(8, sys.byteorder) * 2)
    os.close(end)
    pages = Pages()
    pages.learn(start)
    os.close(start)
    pages.copy()
    assert pages.count == 1


def test_scouts_know_the_way_and_leave_nothing() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", SCOUTING], capture_output=True, text=True, check=True, timeout=60, cwd="/"
    )
    found = json.loads(ended.stdout)
    assert found["same"] and ended.stderr == ""
    assert all(count > 10 for count in found["learned"])
