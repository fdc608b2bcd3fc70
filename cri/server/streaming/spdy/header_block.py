"""Name/value header blocks of SPDY/3: length-prefixed pairs, one zlib stream per direction, a fixed dictionary.

The block is where a small frame can become a large one, so what it may inflate to is limited here and nowhere else.
Source: SPDY draft 3.1, section 2.6.10.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping

MAX_INFLATED = 16 << 10  # bytes of one block after decompression; ours are a few hundred
MAX_PAIRS = 64

_WORDS = """
options head post put delete trace accept accept-charset accept-encoding accept-language accept-ranges age allow
authorization cache-control connection content-base content-encoding content-language content-length
content-location content-md5 content-range content-type date etag expect expires from host if-match
if-modified-since if-none-match if-range if-unmodified-since last-modified location max-forwards pragma
proxy-authenticate proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade
user-agent vary via warning www-authenticate method get status 200_OK version HTTP/1.1 url public set-cookie
keep-alive origin
"""  # the dictionary's counted strings, in its order; "_" stands for a space

_TAIL = (
    b"100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505"
    b"203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized"
    b"403 Forbidden404 Not Found500 Internal Server Error501 Not Implemented503 Service Unavailable"
    b"Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMT"
    b"chunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,"
    b"text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0."
)


def _counted(text: bytes) -> bytes:
    return struct.pack("!I", len(text)) + text


DICTIONARY = b"".join(_counted(word.replace("_", " ").encode()) for word in _WORDS.split()) + _TAIL


class ProtocolError(Exception):
    """The peer broke the protocol; the connection cannot go on."""


class HeaderWriter:
    """The sending direction of one connection. Blocks must be sent in the order in which they were made."""

    def __init__(self) -> None:
        # The smallest window that holds the dictionary: 15 KiB of memory a connection in place of 256.
        self._deflate = zlib.compressobj(wbits=11, memLevel=1, zdict=DICTIONARY)

    def encode(self, headers: Mapping[str, str]) -> bytes:
        pairs = [_counted(name.lower().encode()) + _counted(value.encode()) for name, value in headers.items()]
        block = struct.pack("!I", len(pairs)) + b"".join(pairs)
        return self._deflate.compress(block) + self._deflate.flush(zlib.Z_SYNC_FLUSH)


class HeaderReader:
    """The receiving direction. Every block must be decoded, also of refused streams: the zlib state depends on it."""

    def __init__(self) -> None:
        self._inflate = zlib.decompressobj(zdict=DICTIONARY)

    def decode(self, block: bytes) -> dict[str, str]:
        """Names (lower case) to values; of a value that came several times, the first. Raises ProtocolError."""
        try:
            plain = self._inflate.decompress(block, MAX_INFLATED)
        except zlib.error as error:
            raise ProtocolError(f"header block does not decompress: {error}") from error
        # Without a tail zlib may still hold back output, so the limit itself is already too much.
        if self._inflate.unconsumed_tail or len(plain) >= MAX_INFLATED:
            raise ProtocolError(f"header block of {MAX_INFLATED} bytes or more")
        return _pairs(plain)


def _pairs(plain: bytes) -> dict[str, str]:
    count, rest = _number(plain)
    if count > MAX_PAIRS:
        raise ProtocolError(f"header block with {count} headers, at most {MAX_PAIRS} are taken")
    headers: dict[str, str] = {}
    for _ in range(count):
        name, rest = _text(rest)
        value, rest = _text(rest)
        name = name.lower()
        if not name or name in headers:
            raise ProtocolError(f"header name {name!r} is empty or came twice")
        headers[name] = value.split("\0")[0]
    return headers


def _number(data: bytes) -> tuple[int, bytes]:
    if len(data) < 4:
        raise ProtocolError("header block ends early")
    return int.from_bytes(data[:4], "big"), data[4:]


def _text(data: bytes) -> tuple[str, bytes]:
    length, rest = _number(data)
    if length > len(rest):
        raise ProtocolError("header block ends early")
    return rest[:length].decode("latin-1"), rest[length:]
