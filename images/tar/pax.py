"""Pax extended headers: `LENGTH KEY=VALUE\\n` records that overrule the header block after them (POSIX pax)."""

from __future__ import annotations

from images.errors import MalformedImage
from images.tar.header import MAX_ID, MAX_SECONDS, MAX_SIZE, Entry, checked

XATTR = b"SCHILY.xattr."
LENGTH_DIGITS = 12

Records = dict[bytes, bytes]


def parse(data: bytes) -> Records:
    """The records of one header, the last of a repeated key; GNU's repeated sparse keys are collected (sparse 0.0)."""
    records: Records = {}
    sparse: list[bytes] = []
    at = 0
    while at < len(data):
        key, value, at = _record(data, at)
        if key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):
            sparse.append(value)
        else:
            records[key] = value
    if sparse:
        records.setdefault(b"GNU.sparse.map", b",".join(sparse))
    return records


def _record(data: bytes, at: int) -> tuple[bytes, bytes, int]:
    space = data.find(b" ", at, at + LENGTH_DIGITS)
    digits = data[at:space] if space > 0 else b""
    end = at + int(digits) if digits.isdigit() else 0
    if end <= space + 1 or end > len(data) or data[end - 1 : end] != b"\n":
        raise MalformedImage(f"a pax header is damaged near byte {at}")
    key, equals, value = data[space + 1 : end - 1].partition(b"=")
    if not equals or b"\0" in key:
        raise MalformedImage(f"a pax header has a damaged record: {key[:40]!r}")
    return key, value, end


def apply(records: Records, entry: Entry) -> None:
    """Overrule what the header block says; raises MalformedImage."""
    for key, value in records.items():
        match key:
            case b"path":
                entry.name = _name(value)
            case b"linkpath":
                entry.linkname = _name(value)
            case b"size":
                entry.size = checked(_decimal(value), MAX_SIZE, "size")
            case b"mtime":
                entry.mtime_ns = _nanoseconds(value)
            case b"uid":
                entry.uid = checked(_decimal(value), MAX_ID, "owner")
            case b"gid":
                entry.gid = checked(_decimal(value), MAX_ID, "group")
            case _ if key.startswith(XATTR):
                entry.xattrs = entry.xattrs or {}
                entry.xattrs[key[len(XATTR) :].decode("utf-8", "surrogateescape")] = value


def _name(value: bytes) -> bytes:
    if b"\0" in value:
        raise MalformedImage("a pax header has a file name with a zero byte in it")
    return value


def _decimal(value: bytes) -> int:
    if not value.isdigit() or len(value) > 20:
        raise MalformedImage(f"a pax header holds {value[:20]!r} where a number belongs")
    return int(value)


def _nanoseconds(value: bytes) -> int:
    """Seconds since the epoch, with any number of decimals and perhaps a minus, to ns without a float's rounding."""
    seconds, _, fraction = value.removeprefix(b"-").partition(b".")
    whole = checked(_decimal(seconds or b"0"), MAX_SECONDS, "time")
    ns = whole * 1_000_000_000 + _decimal(fraction[:9].ljust(9, b"0"))
    return -ns if value.startswith(b"-") else ns
