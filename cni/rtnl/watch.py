"""Notices when somebody changes the addresses of interfaces, so that what is known about a bridge can be kept.

A bridge that is removed, or taken down and up, loses addresses, and the kernel tells it to a multicast group that is
silent otherwise: pods' addresses are in namespaces of their own, and the host's ends of their links have none.
"""

from __future__ import annotations

import socket
import struct
from typing import Final

RTMGRP_IPV4_IFADDR: Final = 0x10
RTMGRP_IPV6_IFADDR: Final = 0x100
RTM_DELADDR: Final = 21

_HEADER: Final = struct.Struct("=IHHII")
#: Where struct ifaddrmsg (linux/if_addr.h) keeps the interface's index, behind the header.
_INDEX_AT: Final = _HEADER.size + 4
_RECEIVE_SIZE: Final = 1 << 16


class AddressWatch:
    """A socket that collects news until it is asked."""

    def __init__(self) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self._socket = socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_ROUTE)
        self._socket.bind((0, RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR))

    def lost(self) -> set[int] | None:
        """Indexes of interfaces that have lost an address since the last call; None when there was too much to tell."""
        indexes: set[int] = set()
        while True:
            try:
                news = self._socket.recv(_RECEIVE_SIZE)
            except BlockingIOError:
                return indexes
            except OSError:  # ENOBUFS: the kernel dropped some, so anything may have happened
                return None
            indexes |= _losses(news)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


def _losses(news: bytes) -> set[int]:
    indexes: set[int] = set()
    offset = 0
    while offset + _INDEX_AT + 4 <= len(news):
        length, kind, *_ = _HEADER.unpack_from(news, offset)
        if kind == RTM_DELADDR:
            indexes.add(struct.unpack_from("=I", news, offset + _INDEX_AT)[0])
        offset += max((length + 3) & ~3, _HEADER.size)
    return indexes
