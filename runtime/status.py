"""What a child tells its shim between clone3 and execve, in packets that start with one letter.

T + fd       the master of the terminal that it has made
A + fd       it has a successor, whose pidfd this is (`runtime.arrival`); both wait until the shim says G
H + fds      it has built a tree for another process: its mount namespace and its streams (`runtime.heir`)
X            everything is done but execve
E + JSON     a step failed (errors.to_doc); the shim passes it on to crid unread
end of file  after X: execve succeeded. Without X or E: somebody killed it
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Final

from runtime.errors import to_doc
from runtime.linux.channel import Channel

TERMINAL: Final = b"T"
ARRIVED: Final = b"A"
GO: Final = b"G"
HANDED_OVER: Final = b"H"
EXECUTING: Final = b"X"
FAILED: Final = b"E"


class Status:
    """The child's end; close-on-exec, so that execve itself is the last message."""

    __slots__ = ("_channel",)

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def move_to(self, fd: int) -> None:
        """Make `fd` its number."""
        self._channel.move_to(fd)

    def terminal(self, master: int) -> None:
        """Hand the terminal's master over; it is closed here."""
        self._channel.send_payload(TERMINAL, [master])
        os.close(master)

    def arrived(self, pidfd: int) -> None:
        """Name the process that goes on in this one's place."""
        self._channel.send_payload(ARRIVED, [pidfd])

    def wait_for_go(self) -> None:
        """Until the shim is ready for the successor; raises OSError when it is gone."""
        if self._channel.recv_payload() is None:
            raise ConnectionResetError("the shim is gone")

    def hand_over(self, fds: Sequence[int]) -> None:
        """Give what was made to the process on the other end."""
        self._channel.send_payload(HANDED_OVER, fds)

    def executing(self) -> None:
        """Only execve is left to do."""
        self._channel.send_payload(EXECUTING)

    def failed(self, error: BaseException) -> None:
        """Say what went wrong; the process exits afterwards."""
        self._channel.send_payload(FAILED + json.dumps(to_doc(error)).encode())
