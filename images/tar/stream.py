"""Bytes that come in chunks, read in exact amounts without copying file contents."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from images.errors import MalformedImage


class ByteStream:
    """Over any iterable of chunks; `position` counts the bytes handed out so far."""

    __slots__ = ("_at", "_chunks", "_size", "_view", "position")

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._view = memoryview(b"")
        self._at = 0
        self._size = 0
        self.position = 0

    def exactly(self, count: int) -> bytes:
        """The next `count` bytes, copied; raises MalformedImage when the stream ends before."""
        end = self._at + count
        if end <= self._size:
            data = bytes(self._view[self._at : end])
            self._at = end
            self.position += count
            return data
        return b"".join(self.pieces(count))

    def pieces(self, count: int) -> Iterator[memoryview]:
        """The next `count` bytes as views into the chunks, valid as long as somebody holds them."""
        while count:
            if self._at == self._size and not self._advance():
                raise MalformedImage(f"the archive ends {count} bytes too early, at byte {self.position}")
            end = min(self._at + count, self._size)
            piece = self._view[self._at : end]
            self._at = end
            self.position += len(piece)
            count -= len(piece)
            yield piece

    def skip(self, count: int) -> None:
        """Pass over `count` bytes; raises MalformedImage when the stream ends before."""
        if self._at + count <= self._size:
            self._at += count
            self.position += count
            return
        for _ in self.pieces(count):
            pass

    def skip_padding(self, count: int) -> None:
        """Pass over `count` bytes, or what there is of them: umoci 0.4 leaves out those at the very end."""
        while count and not self.at_end():
            step = min(count, self._size - self._at)
            self.skip(step)
            count -= step

    def at_end(self) -> bool:
        """Whether nothing is left."""
        return self._at == self._size and not self._advance()

    def drain(self) -> None:
        """Read to the end, so that everything upstream (hashes, limits) has seen all of it."""
        while self._advance():
            pass

    def _advance(self) -> bool:
        for chunk in self._chunks:
            if chunk:
                self._view, self._at, self._size = memoryview(chunk), 0, len(chunk)
                return True
        self._at = self._size
        return False
