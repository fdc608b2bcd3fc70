"""Frames of ttrpc (github.com/containerd/ttrpc, PROTOCOL.md), for calls with one request and one response.

    | length (32) | stream id (32) | type (8) | flags (8) | data ... |      big-endian, data of at most 4 MiB

Calls have odd stream ids that grow. Streams of several messages exist in ttrpc, but not in NRI. PyPI has no
maintained implementation of it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from google.protobuf.message import DecodeError

from cri.proto import ttrpc_pb2
from cri.server.nri.errors import ProtocolError

REQUEST: Final = 1
RESPONSE: Final = 2
HEADER: Final = struct.Struct(">IIBB")
DATA_MAX: Final = 4 << 20
FRAME_MAX: Final = HEADER.size + DATA_MAX

OK: Final = 0
UNKNOWN: Final = 2
RESOURCE_EXHAUSTED: Final = 8
UNIMPLEMENTED: Final = 12


class Frame(NamedTuple):
    """One message of a call."""

    stream: int
    kind: int
    data: bytes


class Decoder:
    """Bytes of one connection in, frames out; holds at most one frame that is not complete."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that are complete with `data`. Raises ProtocolError."""
        self._buffer += data
        while len(self._buffer) >= HEADER.size:
            length, stream, kind, _ = HEADER.unpack_from(self._buffer)
            if length > DATA_MAX:
                raise ProtocolError(f"a message of {length} bytes; {DATA_MAX} are allowed")
            if kind not in (REQUEST, RESPONSE):
                raise ProtocolError(f"a message of type {kind}, where only requests and responses belong")
            end = HEADER.size + length
            if len(self._buffer) < end:
                return
            frame = Frame(stream, kind, bytes(self._buffer[HEADER.size : end]))
            del self._buffer[:end]
            yield frame


def encode(stream: int, kind: int, data: bytes) -> bytes:
    """A frame's bytes; raises ProtocolError for one that nobody would take."""
    if len(data) > DATA_MAX:
        raise ProtocolError(f"a message of {len(data)} bytes cannot be sent; {DATA_MAX} are allowed")
    return HEADER.pack(len(data), stream, kind, 0) + data


def request(stream: int, service: str, method: str, payload: bytes, timeout: float) -> bytes:
    """A call; `timeout` in seconds tells the other side when nobody waits for the response any more."""
    message = ttrpc_pb2.Request(service=service, method=method, payload=payload, timeout_nano=int(timeout * 1e9))
    return encode(stream, REQUEST, message.SerializeToString())


def response(stream: int, payload: bytes, code: int = OK, text: str = "") -> bytes:
    """The answer to a call: a payload, or a status other than OK and why."""
    message = ttrpc_pb2.Response(payload=payload)
    if code != OK:
        message.status.code, message.status.message = code, text
    return encode(stream, RESPONSE, message.SerializeToString())


def parse_request(frame: Frame) -> ttrpc_pb2.Request:
    """What is called; raises ProtocolError."""
    try:
        return ttrpc_pb2.Request.FromString(frame.data)
    except DecodeError as error:
        raise ProtocolError(f"request {frame.stream} is not a ttrpc request: {error}") from error


def parse_response(frame: Frame) -> ttrpc_pb2.Response:
    """What was answered; raises ProtocolError."""
    try:
        return ttrpc_pb2.Response.FromString(frame.data)
    except DecodeError as error:
        raise ProtocolError(f"response {frame.stream} is not a ttrpc response: {error}") from error
