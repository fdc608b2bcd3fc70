"""A route netlink socket on which requests are sent in batches, and whose errors are the kernel's own words.

rtnetlink(7) does its work inside send(2): when the call returns, every request of the batch has been carried out and
its answer is queued. So one send and one receive do for a whole pod, nothing waits, and no event loop is needed. What
can block is send(2) itself, while others hold the kernel's network configuration lock: call from a thread.

The messages come from cni.rtnl, encoded by pyroute2.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

SOL_NETLINK: Final = 270
NETLINK_CAP_ACK: Final = 10
NETLINK_EXT_ACK: Final = 11
NETLINK_GET_STRICT_CHK: Final = 12

NLMSG_ERROR: Final = 2
NLMSG_DONE: Final = 3
NLM_F_ACK_TLVS: Final = 0x200
NLM_F_DUMP_INTR: Final = 0x10
NLMSGERR_ATTR_MSG: Final = 1

NLA_TYPE_MASK: Final = 0x3FFF

SIOCGIFINDEX: Final = 0x8933

RECEIVE_SIZE: Final = 1 << 18
DUMP_TRIES: Final = 5
#: Answers are queued before send returns, so this only ends a wait that a kernel bug would make endless.
RECEIVE_SECONDS: Final = 5

_HEADER: Final = struct.Struct("=IHHII")
_ATTRIBUTE: Final = struct.Struct("=HH")
_IFREQ: Final = struct.Struct("16si20x")
_TIMEVAL: Final = struct.Struct("ll")


@dataclass(frozen=True, slots=True)
class Request:
    """An encoded message, and in words what it asks for."""

    what: str
    data: bytes


class Netlink:
    """One socket. Threads take turns; close() or the with statement ends it."""

    def __init__(self, sock: socket.socket) -> None:
        """Take over a NETLINK_ROUTE socket, of whatever network namespace it was opened in."""
        self._socket = sock
        self._lock = threading.Lock()
        self._sequence = 0
        sock.setblocking(True)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _TIMEVAL.pack(RECEIVE_SECONDS, 0))
        sock.setsockopt(SOL_NETLINK, NETLINK_CAP_ACK, 1)
        sock.setsockopt(SOL_NETLINK, NETLINK_EXT_ACK, 1)
        sock.setsockopt(SOL_NETLINK, NETLINK_GET_STRICT_CHK, 1)

    @classmethod
    def open(cls) -> Netlink:
        """A socket in the network namespace of the calling thread."""
        return cls(socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE))

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def __enter__(self) -> Netlink:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def do(self, *requests: Request) -> None:
        """Carry out requests in order, in one system call; raises the OSError of the first that failed.

        The kernel goes on after a failed one, so later requests of a batch must not do harm without the earlier.
        """
        failed: list[OSError] = []
        with self._lock:
            by_sequence = self._send(requests)
            while by_sequence:
                for _, _, sequence, body in self._receive():
                    request = by_sequence.pop(sequence, None)
                    error = _refusal(body, request) if request is not None else None
                    if error is not None:
                        failed.append(error)
        if failed:
            raise failed[0]

    def ask(self, request: Request) -> list[bytes]:
        """The messages, headers included, that answer a get or a dump; raises OSError."""
        for _ in range(DUMP_TRIES):
            with self._lock:
                answers, interrupted = self._collect(request)
            if not interrupted:
                return answers
        raise OSError(errno.EINTR, f"{request.what}: changed under every one of {DUMP_TRIES} dumps")

    def index(self, name: str) -> int | None:
        """The index of an interface in the socket's network namespace (netdevice(7)), or None."""
        try:
            answer = fcntl.ioctl(self._socket, SIOCGIFINDEX, _IFREQ.pack(name.encode(), 0))
        except OSError as error:
            if error.errno == errno.ENODEV:
                return None
            raise
        return int(_IFREQ.unpack(answer)[1])

    def _collect(self, request: Request) -> tuple[list[bytes], bool]:
        answers: list[bytes] = []
        interrupted = False
        (expected,) = self._send([request])
        while True:
            for kind, flags, sequence, message in self._receive_whole():
                if sequence != expected:  # left over from a batch that was given up
                    continue
                interrupted |= bool(flags & NLM_F_DUMP_INTR)
                if kind in (NLMSG_ERROR, NLMSG_DONE):
                    error = _refusal(_error_body(kind, flags, message), request)
                    if error is not None:
                        raise error
                    return answers, interrupted
                answers.append(message)

    def _send(self, requests: Sequence[Request]) -> dict[int, Request]:
        batch = bytearray()
        by_sequence: dict[int, Request] = {}
        for request in requests:
            self._sequence = (self._sequence + 1) & 0xFFFFFFFF
            by_sequence[self._sequence] = request
            start = len(batch)
            batch += request.data
            struct.pack_into("=I", batch, start + 8, self._sequence)
            batch += bytes(-len(batch) % 4)
        self._socket.send(batch)
        return by_sequence

    def _receive(self) -> Iterator[tuple[int, int, int, bytes]]:
        """Answers that end a request, as (type, flags, sequence, error body)."""
        for kind, flags, sequence, message in self._receive_whole():
            if kind in (NLMSG_ERROR, NLMSG_DONE):
                yield kind, flags, sequence, _error_body(kind, flags, message)

    def _receive_whole(self) -> Iterator[tuple[int, int, int, bytes]]:
        data = self._socket.recv(RECEIVE_SIZE)
        offset = 0
        while offset + _HEADER.size <= len(data):
            length, kind, flags, sequence, _ = _HEADER.unpack_from(data, offset)
            if length < _HEADER.size:
                raise OSError(errno.EBADMSG, "a netlink message shorter than its header")
            yield kind, flags, sequence, data[offset : offset + length]
            offset += (length + 3) & ~3


def _error_body(kind: int, flags: int, message: bytes) -> bytes:
    """The errno and the kernel's text: NLMSG_ERROR has the request's header in between, NLMSG_DONE has not."""
    head = message[16:20]
    attributes = message[36:] if kind == NLMSG_ERROR else message[20:]
    return head + (attributes if flags & NLM_F_ACK_TLVS else b"")


def _refusal(body: bytes, request: Request) -> OSError | None:
    (number,) = struct.unpack_from("=i", body) if len(body) >= 4 else (0,)
    if number == 0:
        return None
    explained = _text(body[4:])
    reason = os.strerror(-number) + (f" ({explained})" if explained else "")
    return OSError(-number, f"{request.what}: {reason}")


def _text(data: bytes) -> str:
    message = find_attribute(data, 0, NLMSGERR_ATTR_MSG)
    return message.rstrip(b"\0").decode("utf-8", "replace") if message is not None else ""


def find_attribute(data: bytes, offset: int, wanted: int) -> bytes | None:
    """The payload of the first attribute of a kind among those from `offset` on (netlink(7), struct nlattr)."""
    while offset + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < _ATTRIBUTE.size:
            return None
        if kind & NLA_TYPE_MASK == wanted:
            return data[offset + _ATTRIBUTE.size : offset + length]
        offset += (length + 3) & ~3
    return None
