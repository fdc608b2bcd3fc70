"""Bytes of a SPDY/3.1 connection to frames. No input or output here, so that it can be fuzzed.

Payloads of data frames (up to 16 MiB) are handed on piece by piece as they come; only control frames, which are small,
are ever collected, and only those that are understood.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from cri.server.streaming.spdy.frames import (
    FLAG_FIN,
    FRAME_HEADER,
    GOAWAY,
    HEADERS,
    PING,
    RST_STREAM,
    SETTINGS,
    SETTINGS_INITIAL_WINDOW_SIZE,
    SYN_REPLY,
    SYN_STREAM,
    VERSION,
    WINDOW_UPDATE,
    Data,
    Frame,
    GoAway,
    Headers,
    Ping,
    Reset,
    Settings,
    SynReply,
    SynStream,
    WindowUpdate,
)
from cri.server.streaming.spdy.header_block import HeaderReader, ProtocolError

MAX_CONTROL = 32 << 10  # bytes of a control frame that is understood; others are skipped, whatever their length
_STREAM_ID = 0x7FFFFFFF
_LENGTH = 0xFFFFFF


class FrameDecoder:
    """Feed it what the wire brings, in pieces of any size; it yields frames as they become whole."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._headers = HeaderReader()
        self._data: tuple[int, bool] | None = None  # stream id and FIN flag of the data frame that is under way
        self._left = 0  # bytes still to come of that frame, or of a control frame that is being skipped

    def feed(self, received: bytes) -> Iterator[Frame]:
        """Raises ProtocolError; the decoder is then of no further use."""
        self._buffer += received
        while True:
            if self._left:
                piece = self._take(min(self._left, len(self._buffer)))
                if not piece:
                    return
                self._left -= len(piece)
                if self._data is not None:
                    yield Data(self._data[0], piece, self._data[1] and not self._left)
                continue
            frame_is_whole, frame = self._next()
            if frame is not None:
                yield frame
            if not frame_is_whole:
                return

    def _take(self, size: int) -> bytes:
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken

    def _next(self) -> tuple[bool, Frame | None]:
        """Whether something was consumed, and the frame if it was one to hand on."""
        if len(self._buffer) < FRAME_HEADER.size:
            return False, None
        first, second = FRAME_HEADER.unpack_from(self._buffer)
        flags, length = second >> 24, second & _LENGTH
        if not first & 0x80000000:
            self._take(FRAME_HEADER.size)
            return True, self._data_frame(first, bool(flags & FLAG_FIN), length)
        kind = first & 0xFFFF
        if first >> 16 & 0x7FFF != VERSION:
            raise ProtocolError(f"SPDY version {first >> 16 & 0x7FFF}, only {VERSION} is spoken")
        if kind not in _PARSERS:
            self._take(FRAME_HEADER.size)
            self._data, self._left = None, length
            return True, None
        if length > MAX_CONTROL:
            raise ProtocolError(f"control frame of {length} bytes, at most {MAX_CONTROL} are taken")
        if len(self._buffer) < FRAME_HEADER.size + length:
            return False, None
        payload = self._take(FRAME_HEADER.size + length)[FRAME_HEADER.size :]
        return True, _PARSERS[kind](self._headers, payload, bool(flags & FLAG_FIN))

    def _data_frame(self, stream_id: int, fin: bool, length: int) -> Frame | None:
        if stream_id == 0:
            raise ProtocolError("data frame for stream 0")
        self._data, self._left = (stream_id, fin), length
        return None if length else Data(stream_id, b"", fin)


def _numbers(layout: struct.Struct, payload: bytes) -> tuple[int, ...]:
    if len(payload) < layout.size:
        raise ProtocolError(f"control frame of {len(payload)} bytes, {layout.size} are needed")
    return layout.unpack_from(payload)


_ONE = struct.Struct("!I")
_TWO = struct.Struct("!II")
_SYN_STREAM_HEAD = struct.Struct("!IIBB")


def _syn_stream(headers: HeaderReader, payload: bytes, fin: bool) -> Frame:
    stream_id = _numbers(_SYN_STREAM_HEAD, payload)[0] & _STREAM_ID
    return SynStream(stream_id, headers.decode(payload[_SYN_STREAM_HEAD.size :]), fin)


def _syn_reply(headers: HeaderReader, payload: bytes, fin: bool) -> Frame:
    return SynReply(_numbers(_ONE, payload)[0] & _STREAM_ID, headers.decode(payload[_ONE.size :]), fin)


def _more_headers(headers: HeaderReader, payload: bytes, fin: bool) -> Frame:
    return Headers(_numbers(_ONE, payload)[0] & _STREAM_ID, headers.decode(payload[_ONE.size :]), fin)


def _reset(_headers: HeaderReader, payload: bytes, _fin: bool) -> Frame:
    stream_id, status = _numbers(_TWO, payload)
    return Reset(stream_id & _STREAM_ID, status)


def _settings(_headers: HeaderReader, payload: bytes, _fin: bool) -> Frame:
    (count,) = _numbers(_ONE, payload)
    if count * _TWO.size > len(payload) - _ONE.size:
        raise ProtocolError(f"SETTINGS frame ends before its {count} entries")
    window = None
    for index in range(count):
        name, value = _TWO.unpack_from(payload, _ONE.size + index * _TWO.size)
        if name & _LENGTH == SETTINGS_INITIAL_WINDOW_SIZE:
            window = value & _STREAM_ID
    return Settings(window)


def _ping(_headers: HeaderReader, payload: bytes, _fin: bool) -> Frame:
    return Ping(_numbers(_ONE, payload)[0])


def _go_away(_headers: HeaderReader, payload: bytes, _fin: bool) -> Frame:
    last_stream_id, status = _numbers(_TWO, payload)
    return GoAway(last_stream_id & _STREAM_ID, status)


def _window_update(_headers: HeaderReader, payload: bytes, _fin: bool) -> Frame:
    stream_id, delta = _numbers(_TWO, payload)
    return WindowUpdate(stream_id & _STREAM_ID, delta & _STREAM_ID)


_PARSERS = {
    SYN_STREAM: _syn_stream,
    SYN_REPLY: _syn_reply,
    RST_STREAM: _reset,
    SETTINGS: _settings,
    PING: _ping,
    GOAWAY: _go_away,
    HEADERS: _more_headers,
    WINDOW_UPDATE: _window_update,
}
