"""What inotify does not tell of: the file behind a link, a directory that another machine writes to.

A change counts once it looks the same twice in a row, so that a file which somebody is writing slowly is not read half:
nobody says here that it is closed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

#: Device, inode, mtime in ns and size; None for what is not there.
_Version = tuple[int, int, int, int] | None


class Looks:
    """At the files of one directory, by name; contents are never read."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._read: dict[str, _Version] = {}
        self._last: dict[str, _Version] = {}

    def reads(self, name: str) -> None:
        """The file is about to be read as it is now."""
        self._read[name] = self._version(name)

    def changed(self, names: Iterable[str]) -> set[str]:
        """Those that are not as they were when they were read, and as they were at the last look."""
        before, self._last = self._last, {name: self._version(name) for name in names}
        self._read = {name: version for name, version in self._read.items() if name in self._last}
        steady = {name for name, version in self._last.items() if name in before and before[name] == version}
        return {name for name in steady if self._last[name] != self._read.get(name)}

    def _version(self, name: str) -> _Version:
        try:
            status = os.stat(self._directory / name)
        except OSError:
            return None
        return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size
