"""One gRPC channel to one unix socket: deadlines, repetition of what may be repeated, errors at one boundary."""

from __future__ import annotations

import asyncio
import time
import urllib.parse
from pathlib import Path
from typing import Any

import grpc.aio
from google.protobuf.message import Message

from csi.client.errors import CsiError, mapped
from csi.proto.services import Method

#: Bytes of sun_path (unix(7)) less the closing NUL.
SOCKET_PATH_LIMIT = 107

#: Seconds for which a driver that does not answer is waited for: a restart of one takes about one.
PATIENCE = 3.0
FIRST_DELAY, LAST_DELAY = 0.1, 2.0

_OPTIONS: list[tuple[str, int]] = [
    # A restarted driver is back within a second; gRPC's own backoff grows to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # Channels to one address share their connection by default, and then also its broken state.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_receive_message_length", 4 << 20),
]


class Connection:
    """For asyncio; to be made, used and closed within one running loop. `subject` stands in the errors."""

    def __init__(self, socket: Path, subject: str, *, patience: float = PATIENCE) -> None:
        """It connects at the first call. Raises CsiError for a path that no unix socket can have."""
        self.socket = socket
        self.subject = subject
        self._patience = patience
        path = str(socket)
        if not socket.is_absolute() or len(path.encode()) > SOCKET_PATH_LIMIT or "\0" in path:
            remedy = f"it has to be an absolute path of at most {SOCKET_PATH_LIMIT} bytes"
            raise CsiError(subject, "connect", "INVALID_ARGUMENT", f"bad socket path {path!r}", remedy=remedy)
        self._channel = grpc.aio.insecure_channel(f"unix:{urllib.parse.quote(path)}", options=_OPTIONS)

    async def close(self) -> None:
        await self._channel.close()

    async def call(self, method: Method, request: Message, *, timeout: float, volume: str = "") -> Any:
        """The answer, within `timeout` seconds over all attempts; raises CsiError.

        Every CSI call is idempotent (spec, "Idempotency"), so a driver that is away for a moment is asked again for
        PATIENCE seconds, and one that works on the same volume already (ABORTED) until the deadline.
        """
        started = time.monotonic()
        rpc = self._channel.unary_unary(
            method.path,
            request_serializer=method.request.SerializeToString,
            response_deserializer=method.response.FromString,
        )
        delay = FIRST_DELAY
        while True:
            left = started + timeout - time.monotonic()
            try:
                return await rpc(request, timeout=max(left, 0.001))
            except grpc.aio.AioRpcError as error:
                spent = time.monotonic() - started
                allowed = {grpc.StatusCode.UNAVAILABLE: self._patience, grpc.StatusCode.ABORTED: timeout}
                if spent + delay > min(allowed.get(error.code(), 0.0), timeout):
                    raise mapped(error, self.subject, self.socket, method.name, volume) from error
            await asyncio.sleep(delay)
            delay = min(delay * 2, LAST_DELAY)
