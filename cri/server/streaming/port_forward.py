"""One forwarded connection: a client's pair of streams joined to a TCP port on the pod's own loopback."""

from __future__ import annotations

import asyncio
import logging
import os
import socket

from cri.server.streaming.endpoints import Duplex, Sink
from cri.server.streaming.runtime import StreamingError, StreamingRuntime
from cri.server.streaming.wire import CHUNK

log = logging.getLogger(__name__)

CONNECT_TIMEOUT = 10.0  # seconds for the pod's port to accept


async def forward(runtime: StreamingRuntime, sandbox_id: str, port: int, data: Duplex, error: Sink) -> None:
    """From dialling to the end of the connection. Only a failure to connect is an error to the client.

    A connection that breaks later is an ordinary end, as it would be without the forwarding: clients take a message on
    the error stream as a reason to give up all their connections.
    """
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT):
            connection = await runtime.connect(sandbox_id, port)
    except (StreamingError, OSError) as failure:  # TimeoutError is an OSError
        reason = _reason(failure)
        log.info("port %d of pod %s not forwarded: %s", port, sandbox_id, reason)
        data.discard()
        await error.write(f"error forwarding port {port} to pod {sandbox_id}: {reason}".encode())
    else:
        with connection:
            await _relay(connection, data)
    await data.close()
    await error.close()


def _reason(failure: Exception) -> str:
    if isinstance(failure, TimeoutError) and failure.errno is None:
        return f"no answer within {CONNECT_TIMEOUT:.0f} s"
    if isinstance(failure, OSError) and failure.errno is not None:
        return os.strerror(failure.errno)  # asyncio words a refused connection as "Connect call failed"
    return str(failure)


async def _relay(connection: socket.socket, data: Duplex) -> None:
    """Until the pod's side ends; the client's half-close is passed on to the pod."""
    loop = asyncio.get_running_loop()
    to_pod = asyncio.create_task(_to_pod(data, connection))
    try:
        while chunk := await loop.sock_recv(connection, CHUNK):
            await data.write(chunk)
    except OSError as error:
        log.debug("forwarded connection broke: %s", error)
    finally:
        data.discard()
        to_pod.cancel()
        await asyncio.gather(to_pod, return_exceptions=True)


async def _to_pod(data: Duplex, connection: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    try:
        while chunk := await data.read():
            await loop.sock_sendall(connection, chunk)
        connection.shutdown(socket.SHUT_WR)
    except OSError as error:
        data.discard()  # the pod reads no more, but may still have something to say
        log.debug("forwarded connection takes no more: %s", error)
