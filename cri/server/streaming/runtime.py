"""What the streaming server asks of the runtime: three calls, kept apart so that the server can be tested without it.

The RPC side implements `StreamingRuntime` on pods and their shims. All file descriptors that it hands out belong to
the server from then on; each is a different one, also where a terminal stands behind stdin and stdout alike.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


class StreamingError(Exception):
    """A session cannot start, or broke; the message reaches the client's terminal."""


class Session(Protocol):
    """A command that runs in a container, or an attachment to a container's own streams."""

    #: The end to write to; closing it tells the process that its input has ended. None when not wanted.
    stdin: int | None
    stdout: int | None
    #: The ends to read from; with a terminal, stdout carries everything. None when not wanted.
    stderr: int | None

    async def wait(self) -> int:
        """The exit code once the process has ended, 128 + n after signal n. Of an attachment: of the container."""

    async def resize(self, rows: int, columns: int) -> None:
        """Sets the terminal's size, in characters. Raises StreamingError, OSError."""

    async def close(self) -> None:
        """End it: a command that still runs is killed, an attachment is detached. Idempotent."""


@dataclass(frozen=True, slots=True)
class Streams:
    """Which of the streams the client wants, and whether through a terminal."""

    stdin: bool
    stdout: bool
    stderr: bool
    tty: bool


class StreamingRuntime(Protocol):
    """Whoever has the containers."""

    async def exec(self, container_id: str, command: Sequence[str], streams: Streams) -> Session:
        """Start the command; it runs when this returns. Raises StreamingError."""

    async def attach(self, container_id: str, streams: Streams) -> Session:
        """Connect to the streams of the container's process. Raises StreamingError."""

    async def connect(self, sandbox_id: str, port: int) -> socket.socket:
        """A connected, non-blocking TCP socket to the port on the pod's own loopback, IPv4 or IPv6.

        Raises StreamingError, OSError.
        """
