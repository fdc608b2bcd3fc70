"""SPDY/3.1 frames as values, and the bytes of those that a server sends.

    control   |1| version 15 | type 16 | flags 8 | length 24 | payload
    data      |0| stream id 31         | flags 8 | length 24 | payload

Source: SPDY draft 3.1, sections 2.2 and 2.6.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

VERSION = 3

SYN_STREAM = 1
SYN_REPLY = 2
RST_STREAM = 3
SETTINGS = 4
PING = 6
GOAWAY = 7
HEADERS = 8
WINDOW_UPDATE = 9

FLAG_FIN = 0x01

RST_REFUSED_STREAM = 3
RST_CANCEL = 5

GOAWAY_OK = 0
GOAWAY_PROTOCOL_ERROR = 1

SETTINGS_INITIAL_WINDOW_SIZE = 7

FRAME_HEADER = struct.Struct("!II")


@dataclass(frozen=True, slots=True)
class SynStream:
    """The client opens a stream; `fin`: it will send nothing on it."""

    stream_id: int
    headers: dict[str, str]
    fin: bool


@dataclass(frozen=True, slots=True)
class SynReply:
    """The answer to a SynStream."""

    stream_id: int
    headers: dict[str, str]
    fin: bool


@dataclass(frozen=True, slots=True)
class Headers:
    """More headers of a stream that is open."""

    stream_id: int
    headers: dict[str, str]
    fin: bool


@dataclass(frozen=True, slots=True)
class Reset:
    """A stream is given up, in both directions; `status` is one of RST_*."""

    stream_id: int
    status: int


@dataclass(frozen=True, slots=True)
class Settings:
    """`initial_window` in bytes, or None when the frame does not set it."""

    initial_window: int | None


@dataclass(frozen=True, slots=True)
class Ping:
    """Comes back as it is; the client's ids are odd."""

    ping_id: int


@dataclass(frozen=True, slots=True)
class GoAway:
    """No more streams; `status` is one of GOAWAY_*."""

    last_stream_id: int
    status: int


@dataclass(frozen=True, slots=True)
class WindowUpdate:
    """`delta` bytes more may be sent on the stream; stream 0 stands for the connection."""

    stream_id: int
    delta: int


@dataclass(frozen=True, slots=True)
class Data:
    """A piece of a data frame; `fin` comes with the last piece of the stream."""

    stream_id: int
    payload: bytes
    fin: bool


Frame = SynStream | SynReply | Headers | Reset | Settings | Ping | GoAway | WindowUpdate | Data


def control(kind: int, payload: bytes, flags: int = 0) -> bytes:
    return FRAME_HEADER.pack(0x80000000 | VERSION << 16 | kind, flags << 24 | len(payload)) + payload


def data(stream_id: int, payload: bytes, *, fin: bool = False) -> bytes:
    return FRAME_HEADER.pack(stream_id, (FLAG_FIN if fin else 0) << 24 | len(payload)) + payload


def syn_reply(stream_id: int, header_block: bytes) -> bytes:
    return control(SYN_REPLY, struct.pack("!I", stream_id) + header_block)


def reset(stream_id: int, status: int) -> bytes:
    return control(RST_STREAM, struct.pack("!II", stream_id, status))


def ping(ping_id: int) -> bytes:
    return control(PING, struct.pack("!I", ping_id))


def go_away(last_stream_id: int, status: int) -> bytes:
    return control(GOAWAY, struct.pack("!II", last_stream_id, status))


def window_update(stream_id: int, delta: int) -> bytes:
    return control(WINDOW_UPDATE, struct.pack("!II", stream_id, delta))
