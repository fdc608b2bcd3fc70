"""From a layer's blob to its tar: decompression, limits and hashing, in a thread beside the one that makes files.

    blob -> [gzip | zstd | plain] -> limits -> sha256 (the diff id) == ReadAhead ==> tar reader

Decompressing and hashing happen in C with the interpreter's lock released, so in a thread of their own they cost
the tar reader next to nothing while a second core is free.
"""

from __future__ import annotations

import gzip
import threading
import zlib
from collections import deque
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, Protocol, cast

import zstandard
from isal import igzip, isal_zlib

from images.blobs import BlobReader
from images.errors import MalformedImage, TooLarge
from images.limits import Limits

if TYPE_CHECKING:
    import hashlib

CHUNK = 1 << 20
AHEAD = 4
GZIP_MAGIC = b"\x1f\x8b"
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
#: What a zstd frame may make us allocate; `zstd --ultra` goes that far, more needs `--long` on both sides.
ZSTD_WINDOW = 128 << 20
#: isal's stubs take its exception class for an instance.
_ISAL_ERROR = cast("type[Exception]", isal_zlib.IsalError)
DAMAGE = (gzip.BadGzipFile, EOFError, zlib.error, _ISAL_ERROR, zstandard.ZstdError)


class Readable(Protocol):
    """The part of a binary file that is needed here."""

    def read(self, size: int, /) -> bytes | None:
        """At most `size` bytes, b"" at the end."""


def inflated(blob: BlobReader) -> Iterator[bytes]:
    """The decompressed content in chunks; raises MalformedImage when the data is damaged or ends too early.

    The first bytes tell the format, not the media type: images exist whose types are wrong about it.
    """
    head = blob.head(len(ZSTD_MAGIC))
    reader: Readable = blob
    if head.startswith(GZIP_MAGIC):
        reader = igzip.IGzipFile(fileobj=blob, mode="rb")  # type: ignore[no-untyped-call]
    elif head == ZSTD_MAGIC:
        decompressor = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW)
        reader = decompressor.stream_reader(cast("BinaryIO", blob), read_size=CHUNK, read_across_frames=True)
    try:
        while chunk := reader.read(CHUNK):
            yield chunk
    except DAMAGE as error:
        raise MalformedImage(f"the compressed data is damaged: {error}") from error


def limited(chunks: Iterable[bytes], blob: BlobReader, limits: Limits) -> Iterator[bytes]:
    """The same chunks; raises TooLarge as soon as they are more than a layer, or this blob, may become."""
    total = 0
    for chunk in chunks:
        total += len(chunk)
        if total > limits.unpacked:
            raise TooLarge(f"a layer of more than {limits.unpacked} bytes")
        if total > limits.ratio_free and total > limits.ratio * blob.tell():
            raise TooLarge(
                f"a layer that grows more than {limits.ratio} times, past {limits.ratio_free} bytes: a bomb?"
            )
        yield chunk


def hashed(chunks: Iterable[bytes], hasher: hashlib._Hash) -> Iterator[bytes]:
    """The same chunks, seen by `hasher`."""
    for chunk in chunks:
        hasher.update(chunk)
        yield chunk


class ReadAhead:
    """Runs an iterator in a thread, a few chunks ahead of whoever iterates over this; use it in a `with`.

    What the iterator raises is raised here. Leaving the block early lets the thread end at its next chunk: who
    feeds the iterator has to see to it that there is a next one, or an error.
    """

    def __init__(self, chunks: Iterable[bytes], ahead: int = AHEAD) -> None:
        self._chunks = chunks
        self._ahead = ahead
        self._ready: deque[bytes] = deque()
        self._change = threading.Condition()
        self._ended = False
        self._stopped = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="read-ahead", daemon=True)

    def __enter__(self) -> ReadAhead:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        with self._change:
            self._stopped = True
            self._change.notify_all()
        self._thread.join()

    def __iter__(self) -> Iterator[bytes]:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._ready or self._ended)
                if not self._ready:
                    break
                chunk = self._ready.popleft()
                self._change.notify_all()
            yield chunk
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            for chunk in self._chunks:
                if not self._offer(chunk):
                    break
        except BaseException as error:  # noqa: BLE001 - raised where the chunks are consumed
            self._error = error
        with self._change:
            self._ended = True
            self._change.notify_all()

    def _offer(self, chunk: bytes) -> bool:
        with self._change:
            self._change.wait_for(lambda: self._stopped or len(self._ready) < self._ahead)
            self._ready.append(chunk)
            self._change.notify_all()
            return not self._stopped
