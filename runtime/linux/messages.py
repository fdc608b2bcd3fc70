"""Messages between our own processes as bytes: a JSON object, then perhaps a newline and a blob.

The object is what both sides speak about; the blob is for a reader further on (a container's spec for its first
process), so nobody on the way parses it. Every object carries "v", the protocol's version: a version only ever gains
keys, and a reader ignores keys that it does not know, so a shim of last month's release can be spoken to.

What is too long for one packet is carried in a sealed memfd, whose content can not change while it is read.

JSON's own C functions are called without the classes around them, which make an encoder anew for every text: in a shim
each function and object that a message passes through is one more page of its own.
"""

from __future__ import annotations

import fcntl
import json
import os
from _json import encode_basestring_ascii, make_encoder
from typing import Any, Final, NoReturn

VERSION: Final = 1
MESSAGE_MAX: Final = 16 * 1024 * 1024
_SEALS: Final = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


class ProtocolError(Exception):
    """The far side sent something that is no message of this protocol."""


def _refuse(value: object) -> NoReturn:
    raise TypeError(f"{type(value).__name__} has no place in a message")


# Arguments: markers, default, encoder, indent, key separator, item separator, sort_keys, skipkeys, allow_nan.
_encode: Final[Any] = make_encoder(None, _refuse, encode_basestring_ascii, None, ":", ",", False, False, True)
_scan: Final[Any] = json.JSONDecoder().scan_once  # type: ignore[attr-defined]  # missing in typeshed


class Message:
    """A received message; its fds are close-on-exec and belong to the receiver."""

    __slots__ = ("blob", "doc", "fds")

    def __init__(self, doc: dict[str, Any], fds: list[int], blob: bytes) -> None:
        self.doc = doc
        self.fds = fds
        self.blob = blob


def encode(doc: dict[str, Any], blob: bytes = b"") -> bytes:
    """One message as bytes; raises ProtocolError when it is larger than MESSAGE_MAX."""
    payload = compose({"v": VERSION, **doc})
    if blob:
        payload += b"\n" + blob
    if len(payload) > MESSAGE_MAX:
        raise ProtocolError(f"a message of {len(payload)} bytes; the limit is {MESSAGE_MAX}")
    return payload


def decode(head: bytes) -> dict[str, Any]:
    """The inverse of encode(), without blob; raises ProtocolError for what is not a versioned JSON object."""
    doc = parse(head)
    if not isinstance(doc, dict) or not isinstance(doc.get("v"), int):
        raise ProtocolError("not an object with a version")
    return doc


def compose(value: Any) -> bytes:
    """The inverse of parse(); raises TypeError for what JSON has no word for."""
    return "".join(_encode(value, 0)).encode()


def parse(blob: bytes) -> Any:
    """What is in a blob of JSON, without space around it; raises ProtocolError."""
    try:
        text = blob.decode()
        value, end = _scan(text, 0)
    except (ValueError, RecursionError, StopIteration) as error:  # StopIteration: nothing where a value should be
        raise ProtocolError(f"not JSON: {error}") from error
    if end != len(text):
        raise ProtocolError("more than one value")
    return value


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
