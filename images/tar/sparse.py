"""Sparse files: the four ways in which GNU tar says where the holes are (GNU tar manual, "Storing Sparse Files").

The old one puts the map into the header block and blocks after it; pax 0.0 and 0.1 put it into pax records, 1.0
before the data. All of them end as Entry.segments, checked: ascending, inside the file, together as long as the data.
"""

from __future__ import annotations

from images.errors import MalformedImage, TooLarge
from images.limits import Limits
from images.tar.header import BLOCK, Entry, number
from images.tar.pax import Records
from images.tar.stream import ByteStream

OLD_MAP, OLD_SLOTS, OLD_EXTENDED, OLD_SIZE = 386, 4, 482, slice(483, 495)
EXTENSION_SLOTS, EXTENSION_EXTENDED = 21, 504
SLOT = 24
LINE_LIMIT = 24

Numbers = list[int]


def read_old(block: bytes, entry: Entry, stream: ByteStream, limits: Limits) -> None:
    """Type S: follow the chain of extension blocks."""
    numbers = _slots(block, OLD_MAP, OLD_SLOTS)
    extended = block[OLD_EXTENDED]
    while extended:
        extension = stream.exactly(BLOCK)
        numbers += _slots(extension, 0, EXTENSION_SLOTS)
        extended = extension[EXTENSION_EXTENDED]
        _limit(len(numbers) // 2, limits)
    _accept(entry, numbers, number(block[OLD_SIZE]), limits)


def _slots(block: bytes, start: int, count: int) -> Numbers:
    numbers: Numbers = []
    for at in range(start, start + count * SLOT, SLOT):
        if not block[at]:
            break
        numbers += (number(block[at : at + 12]), number(block[at + 12 : at + SLOT]))
    return numbers


def read_pax(records: Records, entry: Entry, stream: ByteStream, limits: Limits) -> None:
    """Versions 0.0, 0.1 and 1.0; does nothing for an entry that is not sparse."""
    whole = records.get(b"GNU.sparse.realsize", records.get(b"GNU.sparse.size"))
    if whole is None:
        return
    entry.name = records.get(b"GNU.sparse.name", entry.name)
    if records.get(b"GNU.sparse.major") == b"1":
        numbers, length = _read_map(stream, entry.size, limits)
        entry.size -= length
    else:
        texts = records.get(b"GNU.sparse.map", b"").split(b",")
        _limit(len(texts) // 2, limits)
        numbers = [_decimal(text) for text in texts if text]
    _accept(entry, numbers, _decimal(whole), limits)


def _read_map(stream: ByteStream, available: int, limits: Limits) -> tuple[Numbers, int]:
    """The map before the data: a count and that many pairs, a number to a line, padded to whole blocks."""
    numbers: Numbers = []
    wanted, length, rest = 1, 0, b""
    while len(numbers) < wanted:
        if length + BLOCK > available:
            raise MalformedImage("the map of a sparse file is longer than its data")
        lines = (rest + stream.exactly(BLOCK)).split(b"\n")
        rest = lines.pop()
        length += BLOCK
        if len(rest) > LINE_LIMIT and len(numbers) + len(lines) < wanted:
            raise MalformedImage("the map of a sparse file is damaged")
        numbers += [_decimal(line) for line in lines[: wanted - len(numbers)]]
        if wanted == 1 and numbers:
            _limit(numbers[0], limits)
            wanted += 2 * numbers[0]
            numbers += [_decimal(line) for line in lines[1:wanted]]
    return numbers[1:], length


def _accept(entry: Entry, numbers: Numbers, whole: int, limits: Limits) -> None:
    offsets, lengths = numbers[::2], numbers[1::2]
    if len(offsets) != len(lengths):
        raise MalformedImage("the map of a sparse file has an odd number of entries")
    segments = [(offset, length) for offset, length in zip(offsets, lengths, strict=True) if length]
    ends = [offset + length for offset, length in segments]
    ordered = all(end <= start for end, (start, _) in zip(ends, segments[1:], strict=False))
    if not ordered or min(numbers, default=0) < 0 or sum(lengths) != entry.size or max(ends, default=0) > whole:
        raise MalformedImage("the map of a sparse file does not fit its data")
    if whole > limits.unpacked:
        raise TooLarge(f"a sparse file of {whole} bytes, the limit of a layer is {limits.unpacked}")
    entry.segments, entry.sparse_size = segments, whole


def _limit(count: int, limits: Limits) -> None:
    if count > limits.sparse_segments:
        raise TooLarge(f"a sparse file in more than {limits.sparse_segments} pieces")


def _decimal(text: bytes) -> int:
    if not text.isdigit() or len(text) > LINE_LIMIT:
        raise MalformedImage(f"the map of a sparse file holds {text[:LINE_LIMIT]!r}")
    return int(text)
