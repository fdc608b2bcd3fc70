"""The members of a tar stream one after another, with long names, pax records and sparse maps applied."""

from __future__ import annotations

from collections.abc import Iterator

from images.errors import MalformedImage, TooLarge
from images.limits import Limits
from images.tar import pax, sparse
from images.tar.header import (
    BLOCK,
    CONTIGUOUS,
    DIRECTORY,
    GNU_LONGLINK,
    GNU_LONGNAME,
    GNU_SPARSE,
    GNU_VOLUME,
    OLD_REGULAR,
    PAX,
    PAX_GLOBAL,
    REGULAR,
    Entry,
)
from images.tar.stream import ByteStream

ZEROS = bytes(BLOCK)
#: Headers that only say something about the next one.
PREFACES = frozenset({GNU_LONGNAME, GNU_LONGLINK, PAX, PAX_GLOBAL, GNU_VOLUME})


class TarReader:
    """Iterate over it; between two steps data() gives the contents of the current entry, once."""

    def __init__(self, stream: ByteStream, limits: Limits) -> None:
        self._stream = stream
        self._limits = limits
        self._left = 0
        self._padding = 0

    def __iter__(self) -> Iterator[Entry]:
        """Entries until the end mark or the end of the stream; raises MalformedImage, TooLarge."""
        while (block := self._next_block()) is not None:
            entry = Entry(block)
            if entry.type in PREFACES:
                entry = self._after_preface(entry)
            elif entry.type == GNU_SPARSE:
                sparse.read_old(block, entry, self._stream, self._limits)
            self._begin(entry)
            yield entry
            self._stream.skip(self._left)
            self._stream.skip_padding(self._padding)

    def data(self) -> Iterator[memoryview]:
        """What the archive stores for the current entry."""
        left, self._left = self._left, 0
        return self._stream.pieces(left)

    def _begin(self, entry: Entry) -> None:
        if entry.type in (OLD_REGULAR, CONTIGUOUS):
            entry.type = DIRECTORY if entry.name.endswith(b"/") else REGULAR
        elif entry.type == GNU_SPARSE:
            entry.type = REGULAR
        if entry.type != REGULAR:
            entry.size = 0  # whatever the field says, no data follows (POSIX ustar)
        self._left = entry.size
        self._padding = -entry.size % BLOCK

    def _next_block(self) -> bytes | None:
        """The next header block; None at the end mark, of which one block of zeros is taken for two."""
        if self._stream.at_end():
            return None
        block = self._stream.exactly(BLOCK)
        return None if block == ZEROS else block

    def _after_preface(self, entry: Entry) -> Entry:
        """Collect what comes before a header proper, and apply it to that header."""
        records: pax.Records = {}
        name = link = None
        block = b""
        for _ in range(len(PREFACES) + 1):
            if entry.type == PAX:
                records = pax.parse(self._text(entry))
            elif entry.type == GNU_LONGNAME:
                name = self._text(entry).partition(b"\0")[0]
            elif entry.type == GNU_LONGLINK:
                link = self._text(entry).partition(b"\0")[0]
            elif entry.type in PREFACES:
                self._text(entry)  # global records and volume labels say nothing about files
            else:
                break
            following = self._next_block()
            if following is None:
                raise MalformedImage("the archive ends after an extended header")
            block, entry = following, Entry(following)
        else:
            raise MalformedImage("extended headers follow one another without end")
        entry.name = entry.name if name is None else name
        entry.linkname = entry.linkname if link is None else link
        self._extend(entry, records, block)
        return entry

    def _extend(self, entry: Entry, records: pax.Records, block: bytes) -> None:
        pax.apply(records, entry)
        if entry.type == GNU_SPARSE:
            sparse.read_old(block, entry, self._stream, self._limits)
        else:
            sparse.read_pax(records, entry, self._stream, self._limits)

    def _text(self, entry: Entry) -> bytes:
        if entry.size > self._limits.pax_header:
            raise TooLarge(f"an extended header of {entry.size} bytes, the limit is {self._limits.pax_header}")
        text = self._stream.exactly(entry.size)
        self._stream.skip(-entry.size % BLOCK)
        return text
