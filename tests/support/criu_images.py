"""CRIU's images, changed by hand as an attacker would: fields of protobuf messages by their numbers.

changed(image, lambda entry: amended(entry, [5, 4], 1))      every entry's field 5, therein field 4, is 1
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

VARINT, BYTES = 0, 2
HEAD = 8


def changed(image: bytes, change: Callable[[bytes], bytes]) -> bytes:
    """An image with each of its entries changed."""
    out, at = image[:HEAD], HEAD
    while at < len(image):
        size = int.from_bytes(image[at : at + 4], "little")
        entry = change(image[at + 4 : at + 4 + size])
        out += len(entry).to_bytes(4, "little") + entry
        at += 4 + size
    return out


def amended(message: bytes, path: Sequence[int], value: int | bytes | None) -> bytes:
    """The message with the field at a path set, or (None) left out; a message on the way that is absent stays so."""
    if len(path) == 1:
        rest = b"".join(field for number, field, _ in _fields(message) if number != path[0])
        return rest if value is None else rest + _field(path[0], value)
    return b"".join(
        _field(number, amended(content, path[1:], value)) if number == path[0] else field
        for number, field, content in _fields(message)
    )


def value_of(message: bytes, path: Sequence[int]) -> bytes:
    """The bytes at a path, b"" when there are none."""
    for number in path:
        message = next((content for each, _, content in _fields(message) if each == number), b"")
    return message


def _fields(message: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """(number, the field's bytes, its content if it is a message, a string or bytes)."""
    at = 0
    while at < len(message):
        start = at
        key, at = _number(message, at)
        content = b""
        if key & 7 == VARINT:
            _, at = _number(message, at)
        elif key & 7 == BYTES:
            size, at = _number(message, at)
            content, at = message[at : at + size], at + size
        else:
            at += {1: 8, 5: 4}[key & 7]
        yield key >> 3, message[start:at], content


def _field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return _encoded(number << 3 | VARINT) + _encoded(value)
    return _encoded(number << 3 | BYTES) + _encoded(len(value)) + value


def _encoded(value: int) -> bytes:
    out = b""
    while value >= 0x80:
        out, value = out + bytes([value & 0x7F | 0x80]), value >> 7
    return out + bytes([value])


def _number(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte, at = data[at], at + 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            return value, at
