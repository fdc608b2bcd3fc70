"""Messages with file descriptors between our own processes, over AF_UNIX SOCK_SEQPACKET (unix(7)).

One message is one packet: a JSON object, and up to FDS_MAX fds beside it. A packet has a ceiling (the socket's send
buffer), so a document above INLINE_MAX travels in a sealed memfd, which is then the first fd of the packet.
Every packet carries "v", the protocol's version: a version only ever gains keys, and a reader ignores keys that it
does not know, so a shim of last month's release can be spoken to.

    crid -- Channel --> zygote       one socket pair
    crid -- Channel --> shim         the socket pair of its birth, or its shim.sock after a restart of crid

The far side is a process of ours but may be broken: sizes are checked before anything is read.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

VERSION: Final = 1
INLINE_MAX: Final = 64 * 1024
MESSAGE_MAX: Final = 16 * 1024 * 1024
FDS_MAX: Final = 8
CONNECT_SECONDS: Final = 2.0
_INT = struct.Struct("i")
_ANCILLARY: Final = socket.CMSG_SPACE(_INT.size * (FDS_MAX + 1))
_SEALS: Final = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


class ProtocolError(Exception):
    """The far side sent something that is no message of this protocol."""


class Message(NamedTuple):
    """A received message; its fds are close-on-exec and belong to the receiver."""

    doc: dict[str, Any]
    fds: list[int]


class Channel:
    """One end of a connection. It owns its socket; whether calls block is the socket's own blocking mode."""

    __slots__ = ("_socket",)

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock

    @classmethod
    def pair(cls) -> tuple[Channel, Channel]:
        """Two connected ends, for a process that is about to be forked and its parent."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return cls(ours), cls(theirs)

    @classmethod
    def connect(cls, path: str) -> Channel:
        """Connect to a listening SEQPACKET socket; raises OSError when nobody listens."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
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

    @classmethod
    def adopt(cls, fd: int) -> Channel:
        """The end that an inherited or received fd is; it is owned from now on."""
        return cls(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, fileno=fd))

    def move_to(self, fd: int) -> None:
        """Make `fd` this end's number (close-on-exec); whatever was open there is closed."""
        if self.fileno() != fd:
            os.dup2(self.fileno(), fd, inheritable=False)
            self._socket.close()
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, fileno=fd)

    def setblocking(self, blocking: bool) -> None:
        """Choose whether send and recv wait or raise BlockingIOError."""
        self._socket.setblocking(blocking)

    def close(self) -> None:
        """Close the socket; a second call does nothing."""
        self._socket.close()

    def send(self, doc: dict[str, Any], fds: Sequence[int] = ()) -> None:
        """Send one message; the fds stay the caller's. Raises BlockingIOError when it does not fit now, OSError."""
        payload = encode(doc)
        if len(payload) <= INLINE_MAX:
            self._send_packet(payload, fds)
            return
        memfd = _sealed(payload)
        try:
            self._send_packet(json.dumps({"v": VERSION, "memfd": len(payload)}).encode(), (memfd, *fds))
        finally:
            os.close(memfd)

    def recv_within(self, seconds: float) -> Message | None:
        """recv() that waits at most `seconds`; raises TimeoutError. Afterwards the socket blocks."""
        self._socket.settimeout(seconds)
        try:
            return self.recv()
        finally:
            self._socket.settimeout(None)

    def _send_packet(self, payload: bytes, fds: Sequence[int]) -> None:
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack(f"{len(fds)}i", *fds))] if fds else []
        self._socket.sendmsg([payload], ancillary, socket.MSG_NOSIGNAL)

    def recv(self) -> Message | None:
        """The next message, or None when the far side is gone. Raises BlockingIOError, OSError, ProtocolError."""
        payload, ancillary, flags, _ = self._socket.recvmsg(INLINE_MAX, _ANCILLARY, socket.MSG_CMSG_CLOEXEC)
        fds = _received_fds(ancillary)
        if not payload and not fds:
            return None
        try:
            if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
                raise ProtocolError(f"a packet of more than {INLINE_MAX} bytes or {FDS_MAX + 1} fds")
            doc = decode(payload)
            if "memfd" in doc:
                doc = decode(_read_sealed(fds, doc["memfd"]))
        except BaseException:
            for fd in fds:
                os.close(fd)
            raise
        return Message(doc, fds)


def listen(path: str, backlog: int = 16) -> socket.socket:
    """A non-blocking listening SEQPACKET socket at a new path, which only its owner can connect to (mode 0600)."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
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
    return sock


@contextlib.contextmanager
def _short_name(path: str) -> Iterator[str]:
    """A name for `path` that fits into the 108 bytes of a socket address (unix(7)) however deep its directory is."""
    directory, name = os.path.split(path)
    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}/{name}"
    finally:
        os.close(fd)


def encode(doc: dict[str, Any]) -> bytes:
    """One message as bytes; raises ProtocolError when it is larger than MESSAGE_MAX."""
    payload = json.dumps({"v": VERSION, **doc}, separators=(",", ":")).encode()
    if len(payload) > MESSAGE_MAX:
        raise ProtocolError(f"a message of {len(payload)} bytes; the limit is {MESSAGE_MAX}")
    return payload


def decode(payload: bytes) -> dict[str, Any]:
    """The inverse of encode(); raises ProtocolError for anything that is not a versioned JSON object."""
    try:
        doc = json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"not JSON: {error}") from error
    if not isinstance(doc, dict) or not isinstance(doc.get("v"), int):
        raise ProtocolError("not an object with a version")
    return doc


def _received_fds(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    fds: list[int] = []
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds += [fd for (fd,) in _INT.iter_unpack(data[: len(data) - len(data) % _INT.size])]
    return fds


def _sealed(payload: bytes) -> int:
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


def _read_sealed(fds: list[int], size: Any) -> bytes:
    """The document in the first fd, which is taken from `fds`; sealed, so its size can not change while it is read."""
    if not fds or not isinstance(size, int) or not 0 < size <= MESSAGE_MAX:
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
