"""The members of an archive by name: a directory, or a tar that is read in place."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from images.errors import ImageNotFound, TooLarge
from images.limits import Limits
from images.tar.header import HARDLINK, REGULAR, SYMLINK
from images.tar.reader import TarReader
from images.tar.stream import ByteStream
from runtime.linux.paths import open_inside

CHUNK = 1 << 20
MEMBERS = 100_000
LINKS = 8


class Files(Protocol):
    """The members of an archive; all methods block, and raise ImageNotFound for a name that is not there."""

    def read(self, name: str, offset: int, count: int) -> bytes:
        """At most `count` bytes of a member from `offset` on."""

    def close(self) -> None:
        """Give the archive back."""


class DirectoryFiles:
    """Files below a directory, links resolved as if there were nothing outside it."""

    def __init__(self, path: Path) -> None:
        self._root = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def read(self, name: str, offset: int, count: int) -> bytes:
        """As in Files."""
        fd = self._open(name)
        try:
            return os.pread(fd, count, offset)
        finally:
            os.close(fd)

    def close(self) -> None:
        """As in Files."""
        os.close(self._root)

    def _open(self, name: str) -> int:
        try:
            return open_inside(self._root, name, os.O_RDONLY | os.O_NONBLOCK)
        except OSError as error:
            raise ImageNotFound(f"the archive has no readable file {name[:200]!r}: {error.strerror}") from error


class TarFiles:
    """Members of an uncompressed tar, found by one pass over it."""

    def __init__(self, path: Path, limits: Limits) -> None:
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._places: dict[str, tuple[int, int]] = {}
        self._links: dict[str, str] = {}
        try:
            self._index(limits)
        except BaseException:
            os.close(self._fd)
            raise

    def _index(self, limits: Limits) -> None:
        stream = ByteStream(self._chunks())
        for number, entry in enumerate(TarReader(stream, limits)):
            if number >= MEMBERS:
                raise TooLarge(f"an archive of more than {MEMBERS} members")
            name = posixpath.normpath(os.fsdecode(entry.name))
            if entry.type == REGULAR and entry.segments is None:
                self._places[name] = (stream.position, entry.size)
            elif entry.type == SYMLINK:
                self._links[name] = posixpath.join(posixpath.dirname(name), os.fsdecode(entry.linkname))
            elif entry.type == HARDLINK:
                self._links[name] = os.fsdecode(entry.linkname)

    def _chunks(self) -> Iterator[bytes]:
        at = 0
        while chunk := os.pread(self._fd, CHUNK, at):
            at += len(chunk)
            yield chunk

    def read(self, name: str, offset: int, count: int) -> bytes:
        """As in Files."""
        start, size = self._place(name)
        return os.pread(self._fd, max(0, min(count, size - offset)), start + offset)

    def close(self) -> None:
        """As in Files."""
        os.close(self._fd)

    def _place(self, name: str) -> tuple[int, int]:
        name = posixpath.normpath(name)
        for _ in range(LINKS):
            if name in self._places:
                return self._places[name]
            name = posixpath.normpath(self._links.get(name, ""))
        raise ImageNotFound(f"the archive has no file {name[:200]!r}")
