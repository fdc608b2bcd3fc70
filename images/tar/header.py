"""One 512-byte tar header block, in the three dialects that exist: ustar, GNU and old (tar(5), POSIX pax)."""

from __future__ import annotations

import struct
import zlib

from images.errors import MalformedImage

BLOCK = 512
#: name mode uid gid size mtime checksum type linkname magic uname gname devmajor devminor prefix
LAYOUT = struct.Struct("100s8s8s8s12s12s8sc100s8s32s32s8s8s155s12x")
BLANK_CHECKSUM = b" " * 8
POSIX_MAGIC = b"ustar\x0000"
ADLER_MODULUS = 65521

REGULAR, OLD_REGULAR, HARDLINK, SYMLINK, CHAR, BLOCK_DEVICE, DIRECTORY, FIFO, CONTIGUOUS = (
    bytes([code]) for code in b"0\x001234567"
)
GNU_LONGNAME, GNU_LONGLINK, GNU_SPARSE, GNU_VOLUME = b"L", b"K", b"S", b"V"
PAX, PAX_GLOBAL = b"x", b"g"

MAX_ID = (1 << 32) - 2  # (uid_t) -1 means "leave as it is" to chown(2)
MAX_SIZE = 1 << 62
MAX_SECONDS = 1 << 40
MAX_DEVICE = (1 << 20) - 1


class Entry:
    """One member of an archive. Names are bytes, as on disk; `size` counts what is stored in the archive."""

    __slots__ = (
        "devmajor",
        "devminor",
        "gid",
        "linkname",
        "mode",
        "mtime_ns",
        "name",
        "segments",
        "size",
        "sparse_size",
        "type",
        "uid",
        "xattrs",
    )

    def __init__(self, block: bytes) -> None:
        """Parse a header block; raises MalformedImage."""
        (name, mode, uid, gid, size, mtime, checksum, kind, link, magic, _, _, major, minor, prefix) = LAYOUT.unpack(
            block
        )
        _verify(block, checksum)
        self.name: bytes = name.partition(b"\0")[0]
        if magic == POSIX_MAGIC and prefix[0]:  # GNU keeps other things there
            self.name = prefix.partition(b"\0")[0] + b"/" + self.name
        self.type: bytes = kind
        self.mode = number(mode) & 0o7777
        self.uid = checked(number(uid), MAX_ID, "owner")
        self.gid = checked(number(gid), MAX_ID, "group")
        self.size = checked(number(size), MAX_SIZE, "size")
        self.mtime_ns = checked(number(mtime), MAX_SECONDS, "time", -MAX_SECONDS) * 1_000_000_000
        self.linkname: bytes = link.partition(b"\0")[0]
        self.devmajor = self.devminor = 0
        if kind in (CHAR, BLOCK_DEVICE):
            self.devmajor = checked(number(major), MAX_DEVICE, "device number")
            self.devminor = checked(number(minor), MAX_DEVICE, "device number")
        self.xattrs: dict[str, bytes] | None = None
        #: Sparse files: (offset, length) of each piece that is stored, and the length of the whole file.
        self.segments: list[tuple[int, int]] | None = None
        self.sparse_size = 0


def _verify(block: bytes, stored: bytes) -> None:
    """Compare the sum of all bytes, those of the checksum itself taken as blanks.

    The low half of adler32 is that sum plus one, modulo 65521, at the price of one C call: enough against
    damage, and against forgery a sum never was.
    """
    summed = (zlib.adler32(block[156:], zlib.adler32(BLANK_CHECKSUM, zlib.adler32(block[:148]))) - 1) & 0xFFFF
    if summed % ADLER_MODULUS != number(stored) % ADLER_MODULUS and number(stored) != _signed_sum(block):
        raise MalformedImage("not a tar archive, or a damaged one: the checksum of a header is wrong")


def _signed_sum(block: bytes) -> int:
    """The sum as some historic writers made it, of signed bytes."""
    plain = block[:148] + BLANK_CHECKSUM + block[156:]
    return sum(byte - 256 if byte > 127 else byte for byte in plain)


def number(field: bytes) -> int:
    """A number in octal digits, or in base 256 where GNU's high bit says so."""
    if field[0] & 0x80:
        value = int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
        return value - (1 << (8 * len(field) - 1)) if field[0] & 0x40 else value
    digits = field.partition(b"\0")[0].strip()
    try:
        return int(digits, 8) if digits else 0
    except ValueError:
        raise MalformedImage(f"a tar header holds {digits[:20]!r} where a number belongs") from None


def checked(value: int, highest: int, what: str, lowest: int = 0) -> int:
    """The value itself; raises MalformedImage when it is out of range."""
    if not lowest <= value <= highest:
        raise MalformedImage(f"a tar header has an impossible {what}: {value}")
    return value
