"""A container's log file in CRI format: one line each, `<RFC 3339 time> <stdout|stderr> <P|F> <content>`.

Format: kubernetes, KEP "CRI container log" (design-proposals-archive, kubelet-cri-logging.md). F ends a line of the
container's; P is a part of one that is longer than LINE_MAX. An unfinished line waits for its end, as in containerd,
so that a program which flushes in mid-line does not tear its lines apart.

Work goes by the chunk that was read, not by the line: lines of one read share a timestamp, and one write(2) takes them
all to the file.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from typing import Final

from runtime.linux.fds import Fd
from runtime.linux.syscalls import AT_FDCWD, RESOLVE_NO_SYMLINKS, openat2

LINE_MAX: Final = 16 * 1024
_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK


class LogFile:
    """The file behind both streams. A full or broken disk loses lines, counts them and never blocks the container."""

    __slots__ = ("_fd", "_path", "_torn", "lost", "why")

    def __init__(self, path: str, opened: Fd | None = None) -> None:
        """`opened` is the file, taken over if it is given; else open or create it. "" discards all. Raises OSError."""
        self._path = path
        self._torn = False
        self.lost = 0
        self.why = ""
        self._fd = opened.take() if opened else open_log(path) if path else -1

    def reopen(self) -> None:
        """Go on in a new file at the same path, after a rotation; on OSError the old one stays in use."""
        if not self._path:
            return
        fresh = open_log(self._path)
        self.close()
        self._fd, self._torn = fresh, False

    def write(self, record: bytes) -> None:
        """Append whole lines."""
        if self._fd < 0:
            return
        if self._torn:
            record = b"\n" + record
        try:
            written = os.write(self._fd, record)
        except OSError as error:
            self._lose(len(record), error.strerror or "")
            return
        self._torn = written < len(record)  # the disk filled up in mid-line: do not glue the next one to it
        if self._torn:
            self._lose(len(record) - written, "short write")

    def _lose(self, size: int, why: str) -> None:
        self.lost += size
        self.why = why

    def close(self) -> None:
        """Close the file; later writes are discarded."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def open_log(path: str) -> int:
    """A pod that has the log directories as a volume can put links and FIFOs there: neither is followed or waited for.

    The path was resolved when the container was started. Raises OSError: ELOOP, ENXIO, EINVAL for what is no file.
    """
    fd = openat2(AT_FDCWD, path, _FLAGS, 0o640, RESOLVE_NO_SYMLINKS)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "the log is no regular file", path)
    return fd


class LogStream:
    """One stream's way into the log: splits what is read into lines and keeps the unfinished one."""

    __slots__ = ("_full", "_held", "_log", "_part")

    def __init__(self, log: LogFile, name: str) -> None:
        """`name` is stdout or stderr."""
        self._log = log
        self._full = f" {name} F ".encode()
        self._part = f" {name} P ".encode()
        self._held = b""

    def feed(self, data: bytes) -> None:
        """Take what one read(2) returned."""
        if self._held:
            data = self._held + data
        cut = data.rfind(b"\n") + 1
        lines, self._held = data[: cut - 1 if cut else 0], data[cut:]
        stamp = timestamp()
        record = self._records(lines, stamp) if cut else b""
        while len(self._held) > LINE_MAX:
            record += stamp + self._part + self._held[:LINE_MAX] + b"\n"
            self._held = self._held[LINE_MAX:]
        if record:
            self._log.write(record)

    def finish(self) -> None:
        """End of file: an unfinished line is as long as it will ever be."""
        if self._held:
            self._log.write(timestamp() + self._full + self._held + b"\n")
            self._held = b""

    def _records(self, lines: bytes, stamp: bytes) -> bytes:
        prefix = stamp + self._full
        if not _has_long_line(lines):
            return prefix + lines.replace(b"\n", b"\n" + prefix) + b"\n"
        return b"".join(self._split(line, stamp) for line in lines.split(b"\n"))

    def _split(self, line: bytes, stamp: bytes) -> bytes:
        parts = [line[at : at + LINE_MAX] for at in range(0, len(line), LINE_MAX)] or [b""]
        head = b"".join(stamp + self._part + part + b"\n" for part in parts[:-1])
        return head + stamp + self._full + parts[-1] + b"\n"


def _has_long_line(lines: bytes) -> bool:
    """Whether some line exceeds LINE_MAX; looks at one newline per LINE_MAX bytes only."""
    start = 0
    while len(lines) - start > LINE_MAX:
        newline = lines.rfind(b"\n", start, start + LINE_MAX + 1)
        if newline < 0:
            return True
        start = newline + 1
    return False


_second = 0
_second_text = b""


def timestamp() -> bytes:
    """Now, in UTC with nanoseconds: 2026-01-31T23:59:59.000000001Z. The date part is made once a second."""
    global _second, _second_text
    second, nanosecond = divmod(time.time_ns(), 1_000_000_000)
    if second != _second:
        _second = second
        _second_text = b"%04d-%02d-%02dT%02d:%02d:%02d." % time.gmtime(second)[:6]
    return b"%s%09dZ" % (_second_text, nanosecond)
