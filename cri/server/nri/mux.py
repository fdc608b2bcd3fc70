"""NRI's multiplexer: two ttrpc connections in one socket (github.com/containerd/nri, pkg/net/multiplex).

    | connection id (32) | length (32) | payload ... |      big-endian; length is at most one ttrpc message

On connection 1 the runtime calls the plugin, on connection 2 the plugin calls the runtime. Nothing opens or closes
them; they are there. Where a payload ends means nothing to ttrpc, but it does to the reader at the other end: the
published one queues 256 payloads, and takes none that is longer than its buffer of 4096 bytes or than what is left of
the message that it reads. So a message is cut where its own writer cuts it: after the first 4096 bytes, not again.
"""

from __future__ import annotations

import asyncio
import struct
from typing import Final

from cri.server.nri.errors import ProtocolError
from cri.server.nri.ttrpc import FRAME_MAX

PLUGIN: Final = 1
RUNTIME: Final = 2
HEADER: Final = struct.Struct(">II")
BUFFER: Final = 4096


def wrap(connection: int, frame: bytes) -> bytes:
    """One ttrpc frame as it goes over the socket."""
    first, rest = frame[:BUFFER], frame[BUFFER:]
    data = HEADER.pack(connection, len(first)) + first
    return data + HEADER.pack(connection, len(rest)) + rest if rest else data


async def read_payload(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """The next payload and its connection. Raises ProtocolError, EOFError at the end, OSError."""
    connection, length = HEADER.unpack(await reader.readexactly(HEADER.size))
    if length > FRAME_MAX:
        raise ProtocolError(f"a payload of {length} bytes; {FRAME_MAX} are allowed")
    return connection, await reader.readexactly(length)
