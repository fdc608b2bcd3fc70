"""One SPDY connection, server side: reads frames, keeps the streams, answers pings.

The reading is one task (`serve`); it ends when the client leaves, and everything that waits on a stream then gets its
end. Writers are the tasks of the streams' users. A frame is handed to the wire in one piece, so they need no lock.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from cri.server.streaming.spdy import frames
from cri.server.streaming.spdy.decoder import FrameDecoder
from cri.server.streaming.spdy.header_block import HeaderWriter, ProtocolError
from cri.server.streaming.spdy.stream import INITIAL_WINDOW, Credit, Stream
from cri.server.streaming.wire import Wire

log = logging.getLogger(__name__)

MAX_STREAMS = 1024  # open at one time; a port-forward has two for each connection that it carries


class Refused(Exception):
    """Raised by the callback for new streams: this stream is not wanted, the connection goes on."""


class Session:
    """`on_stream` is called with every new stream, before its reply is sent; it may raise Refused."""

    def __init__(self, wire: Wire, on_stream: Callable[[Stream], None], max_streams: int = MAX_STREAMS) -> None:
        self._wire = wire
        self._on_stream = on_stream
        self._max_streams = max_streams
        self._headers = HeaderWriter()
        self._streams: dict[int, Stream] = {}
        self._last_stream_id = 0
        self._peer_keeps_windows = False
        self._peer_keeps_connection_window = False
        self._connection_credit = Credit(INITIAL_WINDOW)
        self.initial_window = INITIAL_WINDOW
        self._last_ping_id = 0  # ours are even

    async def serve(self) -> None:
        """Read until the client leaves or breaks the protocol."""
        decoder = FrameDecoder()
        try:
            while chunk := await self._wire.read():
                for frame in decoder.feed(chunk):
                    if isinstance(frame, frames.GoAway):
                        return  # spdystream sends it as its last word, when all its streams are over
                    await self._handle(frame)
        except ProtocolError as error:
            log.warning("SPDY client broke the protocol: %s", error)
            await self.send(frames.go_away(self._last_stream_id, frames.GOAWAY_PROTOCOL_ERROR))
        finally:
            self._fall()

    async def finish(self) -> None:
        """Say goodbye; no streams are taken any more."""
        await self.send(frames.go_away(self._last_stream_id, frames.GOAWAY_OK))

    async def send(self, frame: bytes) -> None:
        await self._wire.write(frame)

    async def peer_gone(self) -> bool:
        """Send a ping, and tell whether the client was gone before."""
        self._last_ping_id = self._last_ping_id % 0xFFFF + 2
        await self.send(frames.ping(self._last_ping_id))
        return self._wire.peer_gone()

    async def grant(self, stream_id: int, size: int) -> None:
        """Tell the client that `size` bytes were taken, for the stream's window and the connection's."""
        await self.send(frames.window_update(stream_id, size) + frames.window_update(0, size))

    async def credit_for(self, stream_credit: Credit, wanted: int) -> int:
        """Wait for room in the client's windows; how many bytes may be sent now, which count as sent."""
        size = wanted
        if self._peer_keeps_windows:
            size = await stream_credit.at_most(size)
        if self._peer_keeps_connection_window:
            size = await self._connection_credit.at_most(size)
        stream_credit.spend(size)
        self._connection_credit.spend(size)
        return size

    def forget(self, stream_id: int) -> None:
        self._streams.pop(stream_id, None)

    async def _handle(self, frame: frames.Frame) -> None:
        match frame:
            case frames.SynStream():
                await self._open(frame)
            case frames.Data():
                await self._data(frame)
            case frames.Reset():
                if stream := self._streams.pop(frame.stream_id, None):
                    stream.fall()
            case frames.Headers():
                if frame.fin and (stream := self._streams.get(frame.stream_id)):
                    stream.ended_by_peer()
            case frames.Ping():
                if frame.ping_id % 2 == 1:  # the client's own; even ones would answer ours
                    await self.send(frames.ping(frame.ping_id))
            case frames.WindowUpdate():
                self._window_update(frame)
            case frames.Settings():
                self._settings(frame)
            case _:
                return  # a SYN_REPLY: we open no streams

    async def _open(self, frame: frames.SynStream) -> None:
        stream_id = frame.stream_id
        if stream_id % 2 == 0 or stream_id <= self._last_stream_id:
            raise ProtocolError(f"stream id {stream_id} after {self._last_stream_id}")
        self._last_stream_id = stream_id
        stream = Stream(self, stream_id, frame.headers)
        try:
            if len(self._streams) >= self._max_streams:
                raise Refused(f"{self._max_streams} streams are open")
            self._on_stream(stream)
        except Refused as reason:
            log.warning("SPDY stream refused: %s", reason)
            await self.send(frames.reset(stream_id, frames.RST_REFUSED_STREAM))
            return
        self._streams[stream_id] = stream
        await self.send(frames.syn_reply(stream_id, self._headers.encode({})))
        if frame.fin:
            stream.ended_by_peer()

    async def _data(self, frame: frames.Data) -> None:
        stream = self._streams.get(frame.stream_id)
        if stream is None or stream.inbox.unwanted:
            # Data can be under way when a stream ends; its room in the connection's window is given back.
            if self._peer_keeps_connection_window and frame.payload:
                await self.send(frames.window_update(0, len(frame.payload)))
        else:
            await stream.inbox.put(frame.payload)
        if stream is None:
            return
        if frame.fin:
            stream.ended_by_peer()

    def _window_update(self, frame: frames.WindowUpdate) -> None:
        self._peer_keeps_windows = True
        if frame.stream_id == 0:
            self._peer_keeps_connection_window = True
            self._connection_credit.grow(frame.delta)
        elif stream := self._streams.get(frame.stream_id):
            stream.credit.grow(frame.delta)

    def _settings(self, frame: frames.Settings) -> None:
        if frame.initial_window is None:
            return
        self._peer_keeps_windows = True
        for stream in self._streams.values():
            stream.credit.grow(frame.initial_window - self.initial_window)
        self.initial_window = frame.initial_window

    def _fall(self) -> None:
        for stream in self._streams.values():
            stream.fall()
        self._streams.clear()
        self._connection_credit.release()
