"""How much a directory tree occupies, without being led astray by what is in it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from runtime.linux.syscalls import openat2
from runtime.linux.trees import DIRECTORY, STAY_INSIDE

SECTOR = 512


def measure(path: Path, *, enough: int | None = None) -> tuple[int, int]:
    """Bytes on disk and inodes of a tree that may be changing; a file with several names counts once.

    Directories are opened by their path below the root, so no fd is held per level; what lies deeper than PATH_MAX,
    or vanishes meanwhile, is left out. With `enough` it ends once more bytes than those were found.
    Raises FileNotFoundError when there is no such tree.
    """
    root = os.open(path, DIRECTORY | os.O_CLOEXEC)
    try:
        status = os.fstat(root)
        size, inodes = status.st_blocks * SECTOR, 1
        linked: set[int] = set()
        waiting = [""]
        while waiting and (enough is None or size <= enough):
            below = waiting.pop()
            for name, entry in _entries(root, below):
                if stat.S_ISDIR(entry.st_mode):
                    waiting.append(f"{below}/{name}" if below else name)
                elif entry.st_nlink > 1:
                    if entry.st_ino in linked:
                        continue
                    linked.add(entry.st_ino)
                size += entry.st_blocks * SECTOR
                inodes += 1
        return size, inodes
    finally:
        os.close(root)


def _entries(root: int, path: str) -> Iterator[tuple[str, os.stat_result]]:
    try:
        fd = openat2(root, path or ".", DIRECTORY, resolve=STAY_INSIDE)
    except OSError:
        return  # gone, replaced, beyond a mount or too deep: see above
    try:
        with os.scandir(fd) as entries:
            for entry in entries:
                try:
                    status = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                yield entry.name, status
    finally:
        os.close(fd)
