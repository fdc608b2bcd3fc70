"""A blob that is still arriving, and its readers: unpacking starts with the first bytes, not with the last.

The writer appends to a file and tells a Growth how far it is; each reader follows in the same file, as fast as it
can. So nothing is buffered beyond the page cache, a slow reader never holds up a download, and a reader that starts
late, or a second one, costs nothing.
"""

from __future__ import annotations

import io
import os
import threading
from pathlib import Path


class Growth:
    """A file and how far it has grown; complete once its content is known to be what its digest says."""

    def __init__(self) -> None:
        self._change = threading.Condition()
        self._path: Path | None = None
        self._available = 0
        self._complete = False
        self._error: BaseException | None = None

    @classmethod
    def complete(cls, path: Path, size: int) -> Growth:
        """That of a file which is all there."""
        growth = cls()
        growth._path, growth._available, growth._complete = path, size, True
        return growth

    def begin(self, path: Path) -> None:
        """The file is there, and may be empty."""
        with self._change:
            self._path = path
            self._change.notify_all()

    def advance(self, available: int) -> None:
        """The file holds that many bytes now."""
        with self._change:
            self._available = available
            self._change.notify_all()

    def finish(self, path: Path) -> None:
        """It is all there and verified: rename it to `path`."""
        with self._change:
            assert self._path is not None
            os.rename(self._path, path)
            self._path, self._complete = path, True
            self._change.notify_all()

    def fail(self, error: Exception) -> None:
        """It will never be complete: readers raise `error` as soon as they look again."""
        with self._change:
            self._error = error
            self._change.notify_all()

    def wake(self) -> None:
        """Make waiting readers look again."""
        with self._change:
            self._change.notify_all()

    def open(self, reader: BlobReader) -> int:
        """A new fd of the file, waiting until it is there."""
        with self._change:
            self._change.wait_for(lambda: self._path or self._error or reader.stopped)
            self._raise_if_over(reader)
            assert self._path is not None
            return os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)

    def wait_beyond(self, offset: int, reader: BlobReader) -> int:
        """Block until there are more than `offset` bytes: how many there are, or `offset` at the verified end."""
        with self._change:
            self._change.wait_for(lambda: self._available > offset or self._complete or self._error or reader.stopped)
            self._raise_if_over(reader)
            return self._available

    def _raise_if_over(self, reader: BlobReader) -> None:
        if error := reader.stopped or self._error:
            raise error


class BlobReader(io.RawIOBase):
    """Reads a blob from its start, while it grows, in one thread; stop() may come from another."""

    def __init__(self, growth: Growth) -> None:
        super().__init__()
        self._growth = growth
        self._fd = -1
        self._at = 0
        self.stopped: Exception | None = None

    def head(self, count: int) -> bytes:
        """The first bytes, less where the blob is shorter; the position stays."""
        have = 0
        while have < count and (available := self._growth.wait_beyond(have, self)) > have:
            have = available
        return os.pread(self._opened(), count, 0)

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]  # typeshed: any writable buffer
        """Fill as much of `buffer` as there is, waiting for at least one byte; 0 only at the verified end."""
        available = self._growth.wait_beyond(self._at, self)
        count = os.preadv(self._opened(), [memoryview(buffer)[: available - self._at]], self._at)
        self._at += count
        return count

    def tell(self) -> int:
        """How many bytes have been read."""
        return self._at

    def stop(self, error: Exception) -> None:
        """Make the reading thread raise `error` instead of waiting, or of going on."""
        self.stopped = error
        self._growth.wake()

    def close(self) -> None:
        """Close the file; the writer goes on."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        super().close()

    def _opened(self) -> int:
        if self._fd < 0:
            self._fd = self._growth.open(self)
        return self._fd
