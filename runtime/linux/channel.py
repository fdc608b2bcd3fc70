"""Messages with file descriptors between our own processes, over AF_UNIX SOCK_SEQPACKET (unix(7)).

One message (`messages`) is one packet, with up to FDS_MAX fds beside it. A packet has a ceiling, the socket's send
buffer, so what is above INLINE_MAX travels in a sealed memfd, which is then the first fd of the packet "@<size>".

    crid -- Channel --> zygote       one socket pair
    crid -- Channel --> shim         the socket pair of its birth, or its shim.sock after a restart of crid

The far side is a process of ours but may be broken: sizes are checked before anything is read.

_socket is what `socket` wraps: without the wrapper's enums a message touches half as many pages, and a shim's memory is
the pages that it touches.
"""

from __future__ import annotations

import contextlib
import os
import socket as wrapped
import struct
from _socket import (
    AF_UNIX,
    CMSG_SPACE,
    MSG_CMSG_CLOEXEC,
    MSG_CTRUNC,
    MSG_NOSIGNAL,
    MSG_TRUNC,
    SCM_RIGHTS,
    SOCK_SEQPACKET,
    SOL_SOCKET,
    socket,
    socketpair,
)
from collections.abc import Iterator, Sequence
from typing import Any, Final

from runtime.linux.fds import close_all
from runtime.linux.messages import Message, ProtocolError, decode, encode, read_sealed, sealed

INLINE_MAX: Final = 64 * 1024
FDS_MAX: Final = 8
CONNECT_SECONDS: Final = 2.0
_ANCILLARY: Final = CMSG_SPACE(4 * (FDS_MAX + 1))


class Channel:
    """One end of a connection. It owns its socket; whether calls block is the socket's own blocking mode."""

    __slots__ = ("_socket",)

    def __init__(self, sock: socket) -> None:
        self._socket = sock

    @classmethod
    def pair(cls) -> tuple[Channel, Channel]:
        """Two connected ends, for a process that is about to be forked and its parent."""
        ours, theirs = socketpair(AF_UNIX, SOCK_SEQPACKET)
        return cls(ours), cls(theirs)

    @classmethod
    def adopt(cls, fd: int) -> Channel:
        """The end that an inherited or received fd is; it is owned from now on."""
        return cls(socket(AF_UNIX, SOCK_SEQPACKET, 0, fd))

    @classmethod
    def connect(cls, path: str) -> Channel:
        """Connect to a listening SEQPACKET socket; raises OSError when nobody listens."""
        sock = socket(AF_UNIX, SOCK_SEQPACKET)
        try:
            sock.settimeout(CONNECT_SECONDS)  # a listener whose backlog is full is a hung one
            with _short_name(path) as name:
                sock.connect(name)
        except BaseException:
            sock.close()
            raise
        return cls(sock)

    def fileno(self) -> int:
        """The socket's fd, for poll loops."""
        return self._socket.fileno()

    def move_to(self, fd: int) -> None:
        """Make `fd` this end's number (close-on-exec); whatever was open there is closed."""
        if self.fileno() != fd:
            os.dup2(self.fileno(), fd, inheritable=False)
            self._socket.close()
            self._socket = socket(AF_UNIX, SOCK_SEQPACKET, 0, fd)

    def setblocking(self, blocking: bool) -> None:
        """Choose whether send and recv wait or raise BlockingIOError."""
        self._socket.setblocking(blocking)

    def close(self) -> None:
        """Close the socket; a second call does nothing."""
        self._socket.close()

    def send(self, doc: dict[str, Any], fds: Sequence[int] = (), blob: bytes = b"") -> None:
        """Send one message; the fds stay the caller's. Raises BlockingIOError when it does not fit now, OSError."""
        self.send_payload(encode(doc, blob), fds)

    def send_payload(self, payload: bytes, fds: Sequence[int] = ()) -> None:
        """Send what encode() made, or what recv_payload() returned elsewhere."""
        if len(payload) <= INLINE_MAX:
            self._send_packet(payload, fds)
            return
        memfd = sealed(payload)
        try:
            self._send_packet(b"@%d" % len(payload), (memfd, *fds))
        finally:
            os.close(memfd)

    def _send_packet(self, payload: bytes, fds: Sequence[int]) -> None:
        ancillary = [(SOL_SOCKET, SCM_RIGHTS, struct.pack(f"{len(fds)}i", *fds))] if fds else []
        self._socket.sendmsg([payload], ancillary, MSG_NOSIGNAL)

    def recv(self) -> Message | None:
        """The next message, or None when the far side is gone. Raises BlockingIOError, OSError, ProtocolError."""
        received = self.recv_payload()
        if received is None:
            return None
        payload, fds = received
        head, _, blob = payload.partition(b"\n")
        try:
            return Message(decode(head), fds, blob)
        except ProtocolError:
            close_all(fds)
            raise

    def recv_payload(self) -> tuple[bytes, list[int]] | None:
        """The next message unparsed, for a process that only passes it on; else as recv()."""
        payload, ancillary, flags, _ = self._socket.recvmsg(INLINE_MAX, _ANCILLARY, MSG_CMSG_CLOEXEC)
        fds = _received_fds(ancillary) if ancillary else []
        if not payload and not fds:
            return None
        try:
            if flags & (MSG_TRUNC | MSG_CTRUNC):
                raise ProtocolError(f"a packet of more than {INLINE_MAX} bytes or {FDS_MAX + 1} fds")
            return (read_sealed(fds, payload) if payload[:1] == b"@" else payload), fds
        except BaseException:
            close_all(fds)
            raise

    def recv_within(self, seconds: float) -> Message | None:
        """recv() that waits at most `seconds`; raises TimeoutError. Afterwards the socket blocks."""
        self._socket.settimeout(seconds)
        try:
            return self.recv()
        finally:
            self._socket.settimeout(None)


def listen(path: str, backlog: int = 16) -> int:
    """The fd of a non-blocking listening socket at a new path, which only its owner can connect to (mode 0600)."""
    sock = socket(AF_UNIX, SOCK_SEQPACKET)
    try:
        sock.setblocking(False)
        before = os.umask(0o177)
        try:
            with _short_name(path) as name:
                sock.bind(name)
        finally:
            os.umask(before)
        sock.listen(backlog)
    except BaseException:
        sock.close()
        raise
    return sock.detach()


def accept(listener: int) -> Channel:
    """The next connection to a listen()ing fd, which stays the caller's; raises OSError."""
    sock = wrapped.socket(AF_UNIX, SOCK_SEQPACKET, 0, listener)
    try:
        accepted, _ = sock.accept()
    finally:
        sock.detach()
    return Channel.adopt(accepted.detach())


@contextlib.contextmanager
def _short_name(path: str) -> Iterator[str]:
    """A name for `path` that fits into the 108 bytes of a socket address (unix(7)) however deep its directory is."""
    directory, name = os.path.split(path)
    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}/{name}"
    finally:
        os.close(fd)


def _received_fds(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    fds: list[int] = []
    for level, kind, data in ancillary:
        if level == SOL_SOCKET and kind == SCM_RIGHTS:
            fds += memoryview(data[: len(data) // 4 * 4]).cast("i").tolist()
    return fds
