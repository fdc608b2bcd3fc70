"""CRIU's images as messages: two 32-bit magic numbers, then entries, each with its length before it.

Source: https://criu.org/Images.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from cri.proto import criu_pb2 as criu
from cri.server.errors import InvalidRequest
from runtime.linux.files import read_limited

COMMON_MAGIC = 0x54564319
LIMIT = 64 << 20

M = TypeVar("M", bound=Message)


def entries(path: Path, kind: type[M]) -> Iterator[M]:
    """Those of one image; raises InvalidRequest for what is none."""
    at, data = 8, _content(path)
    while at < len(data):
        message, at = _entry(path, data, at, kind)
        yield message


def packets(path: Path) -> Iterator[criu.Packet]:
    """Those of sk-queues.img, which have their data behind them; nothing without that image."""
    at, data = 8, _content(path) if path.exists() else b""
    while at < len(data):
        message, at = _entry(path, data, at, criu.Packet)
        at += message.length
        yield message


def _content(path: Path) -> bytes:
    try:
        data = read_limited(path, LIMIT)
    except OSError as error:
        raise InvalidRequest(f"the checkpoint's {path.name} cannot be read: {error}") from error
    if int.from_bytes(data[:4], "little") != COMMON_MAGIC:
        raise InvalidRequest(f"the checkpoint's {path.name} is no image of CRIU's")
    return data


def _entry(path: Path, data: bytes, at: int, kind: type[M]) -> tuple[M, int]:
    """The entry there, and where the next one is."""
    try:
        (size,) = struct.unpack_from("<I", data, at)
        return kind.FromString(data[at + 4 : at + 4 + size]), at + 4 + size
    except (struct.error, DecodeError) as error:
        raise InvalidRequest(f"the checkpoint's {path.name} cannot be read: {error}") from error
