r"""Copying between a container's streams, its log and whoever is attached.

    container stdout/stderr or terminal --> Output --> log
                                                 \--> readers (attach): pipes, cut off when they are full
    writers (attach) --> Input --> container stdin or terminal, at the pace of the container

Only the log must get everything. A slow reader loses its connection, never the container its progress.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

from runtime.linux.fds import Fd, pipe
from runtime.logs import LogStream
from runtime.shim.loop import WRITE, Loop

CHUNK: Final = 64 * 1024
READER_BUFFER: Final = 1024 * 1024
#: Writers that have gone before the container has read what they wrote; beyond these the first is forgotten.
GONE_MAX: Final = 16
#: Events to watch for: none but the end of the other side, which epoll(7) always tells.
HANGUP: Final = 0


class Output:
    """One output stream: reads what the container writes and hands it on."""

    __slots__ = ("_ended", "_loop", "_readers", "_source", "_stream")

    def __init__(self, loop: Loop, source: Fd, stream: LogStream, ended: Callable[[], None]) -> None:
        """`source` is non-blocking and owned from now on; `ended` is called once, at end of file."""
        self._loop = loop
        self._source = source
        self._stream = stream
        self._ended = ended
        self._readers: list[Fd] = []
        loop.watch(source.fileno(), self._readable)

    @property
    def open(self) -> bool:
        """Whether end of file has not come yet."""
        return not self._source.closed

    def attach(self) -> Fd:
        """A pipe that receives everything from now on."""
        theirs, ours = pipe(write_blocks=False, size=READER_BUFFER)
        if self.open:
            self._readers.append(ours)
            self._loop.watch(ours.fileno(), lambda: self._cut(ours), HANGUP)  # nobody may write here for years
        else:
            ours.close()
        return theirs

    def _cut(self, reader: Fd) -> None:
        self._readers.remove(reader)
        self._loop.unwatch(reader.fileno())
        reader.close()

    def _readable(self) -> None:
        self._read_once()

    def drain(self) -> None:
        """Read all that is there now: the container has ended and its last words may still be in the pipe."""
        for _ in range(READER_BUFFER // 4096):  # more than any pipe holds
            if not self.open or not self._read_once():
                break

    def _read_once(self) -> bool:
        try:
            data = os.read(self._source.fileno(), CHUNK)
        except BlockingIOError:
            return False
        except OSError:  # EIO: nobody has the terminal open any more
            data = b""
        if not data:
            self.close()
            return False
        self._stream.feed(data)
        for reader in self._readers[:]:
            if not _gave(reader, data):
                self._cut(reader)
        return True

    def close(self) -> None:
        """End of the stream, by itself or because nobody shall wait for it any longer."""
        if not self.open:
            return
        self._loop.unwatch(self._source.fileno())
        self._source.close()
        self._stream.finish()
        for reader in self._readers[:]:
            self._cut(reader)
        self._ended()


def _gave(reader: Fd, data: bytes) -> bool:
    """Write it all without waiting; False for a reader that cannot take it, or has gone."""
    try:
        return os.write(reader.fileno(), data) == len(data)
    except OSError:  # EAGAIN, EPIPE
        return False


class Input:
    """A container's stdin: takes from attached writers, no faster than the container reads."""

    __slots__ = ("_close_after_first", "_ending", "_gone", "_loop", "_pending", "_target", "_writers")

    def __init__(self, loop: Loop, target: Fd, *, close_after_first: bool) -> None:
        """`target` is non-blocking and owned from now on. `close_after_first` is CRI's stdin_once."""
        self._loop = loop
        self._target = target
        self._close_after_first = close_after_first
        self._writers: list[Fd] = []
        self._gone: list[Fd] = []  # those of the writers that have left, and whose last words wait in the pipe
        self._pending = b""  # not empty: the container is behind, and no writer is listened to
        self._ending = False

    def attach(self) -> Fd:
        """A pipe whose content goes to the container."""
        ours, theirs = pipe(read_blocks=False)
        if self._target.closed:
            ours.close()
        else:
            self._writers.append(ours)
            if self._pending:
                self._await_end(ours)
            else:
                self._listen(ours)
        return theirs

    def _listen(self, writer: Fd) -> None:
        self._loop.watch(writer.fileno(), lambda: self._readable(writer))

    def _await_end(self, writer: Fd) -> None:
        self._loop.watch(writer.fileno(), lambda: self._left(writer), HANGUP)

    def _left(self, writer: Fd) -> None:
        self._loop.unwatch(writer.fileno())
        self._gone.append(writer)
        if len(self._gone) > GONE_MAX:
            self._drop(self._gone[0])

    def _readable(self, writer: Fd) -> None:
        try:
            data = os.read(writer.fileno(), CHUNK)
        except BlockingIOError:
            return
        if data:
            self._pending = data
            self._write()
            if self._pending:
                self._pause()
            return
        self._drop(writer)
        if self._close_after_first:
            self.close()

    def _write(self) -> None:
        try:
            self._pending = self._pending[os.write(self._target.fileno(), self._pending) :]
        except BlockingIOError:
            return
        except OSError:  # EPIPE, EIO: the container reads no more
            self._pending = b""
            self.close()

    def _pause(self) -> None:
        for writer in self._writers:
            self._loop.unwatch(writer.fileno())
            self._await_end(writer)
        self._loop.watch(self._target.fileno(), self._writable, WRITE)

    def _writable(self) -> None:
        self._write()
        if self._pending or self._target.closed:
            return
        self._loop.unwatch(self._target.fileno())
        self._gone.clear()
        for writer in self._writers:
            self._loop.unwatch(writer.fileno())
            self._listen(writer)
        if self._ending:
            self.close()

    def _drop(self, writer: Fd) -> None:
        self._loop.unwatch(writer.fileno())
        self._writers.remove(writer)
        if writer in self._gone:
            self._gone.remove(writer)
        writer.close()

    def close(self) -> None:
        """End of file for the container, after what was already taken for it; and for those who write."""
        for writer in list(self._writers):
            self._drop(writer)
        self._ending = True
        if not self._pending:
            self.abandon()

    def abandon(self) -> None:
        """Close without regard to what the container has not taken."""
        if not self._target.closed:
            self._loop.unwatch(self._target.fileno())
            self._target.close()
