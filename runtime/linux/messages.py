"""Messages between our own processes as bytes: a JSON object, then perhaps a newline and a blob.

The object is what both sides speak about; the blob is for a reader further on (a container's spec for its first
process), so nobody on the way parses it. Every object carries "v", the protocol's version: a version only ever gains
keys, and a reader ignores keys that it does not know, so a shim of last month's release can be spoken to.

What is too long for one packet is carried in a sealed memfd, whose content can not change while it is read.
"""

from __future__ import annotations

import fcntl
import json
import os
from typing import Any, Final, NamedTuple

VERSION: Final = 1
MESSAGE_MAX: Final = 16 * 1024 * 1024
_SEALS: Final = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
_ENCODER: Final = json.JSONEncoder(separators=(",", ":"))
_DECODER: Final = json.JSONDecoder()


class ProtocolError(Exception):
    """The far side sent something that is no message of this protocol."""


class Message(NamedTuple):
    """A received message; its fds are close-on-exec and belong to the receiver."""

    doc: dict[str, Any]
    fds: list[int]
    blob: bytes = b""


def encode(doc: dict[str, Any], blob: bytes = b"") -> bytes:
    """One message as bytes; raises ProtocolError when it is larger than MESSAGE_MAX."""
    payload = _ENCODER.encode({"v": VERSION, **doc}).encode()
    if blob:
        payload += b"\n" + blob
    if len(payload) > MESSAGE_MAX:
        raise ProtocolError(f"a message of {len(payload)} bytes; the limit is {MESSAGE_MAX}")
    return payload


def decode(head: bytes) -> dict[str, Any]:
    """The inverse of encode(), without blob; raises ProtocolError for what is not a versioned JSON object."""
    try:
        text = head.decode()
        doc, end = _DECODER.raw_decode(text)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"not JSON: {error}") from error
    if end != len(text) or not isinstance(doc, dict) or not isinstance(doc.get("v"), int):
        raise ProtocolError("not an object with a version")
    return doc


def sealed(payload: bytes) -> int:
    """A sealed memfd that holds `payload`."""
    fd = os.memfd_create("message", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        view = memoryview(payload)
        while view:
            view = view[os.write(fd, view) :]
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
    except BaseException:
        os.close(fd)
        raise
    return fd


def read_sealed(fds: list[int], packet: bytes) -> bytes:
    """What is in the first fd, which is taken from `fds`; sealed, so its size can not change while it is read."""
    size = int(packet[1:]) if packet[1:].isdigit() else 0
    if not fds or not 0 < size <= MESSAGE_MAX:
        raise ProtocolError(f"a document of {size} bytes in {len(fds)} fds")
    fd = fds.pop(0)
    try:
        if os.fstat(fd).st_size != size or fcntl.fcntl(fd, fcntl.F_GET_SEALS) & _SEALS != _SEALS:
            raise ProtocolError("a document that is not sealed or not of the size it was announced with")
        return os.pread(fd, size, 0)
    except OSError as error:
        raise ProtocolError(f"a document that cannot be read: {error}") from error
    finally:
        os.close(fd)
