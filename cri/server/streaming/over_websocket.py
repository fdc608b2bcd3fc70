"""Sessions of WebSocket clients: fixed channel numbers in place of streams that are opened.

Exec and attach: 0 stdin, 1 stdout, 2 stderr, 3 error, 4 resize. PortForward: one connection per port of the request,
made at once; channel 2n is its data, 2n + 1 its errors, and the first message on either is the port in two
little-endian bytes. Newer clients forward ports by SPDY inside of a WebSocket, which is over_spdy's business.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from cri.server.streaming import remote_command
from cri.server.streaming.channels import Channel, Channels
from cri.server.streaming.endpoints import while_client_stays
from cri.server.streaming.port_forward import forward
from cri.server.streaming.remote_command import ClientStreams
from cri.server.streaming.runtime import Session, StreamingRuntime, Streams
from cri.server.streaming.websocket import WebSocket

COMMAND_PROTOCOLS = (
    "v5.channel.k8s.io",
    "v4.channel.k8s.io",
    "v4.base64.channel.k8s.io",
    "channel.k8s.io",
    "base64.channel.k8s.io",
    "",
)
FORWARD_PROTOCOLS = ("v4.channel.k8s.io", "v4.base64.channel.k8s.io", "")
TUNNEL_PREFIX = "SPDY/3.1+"

STDIN, STDOUT, STDERR, ERROR, RESIZE = range(5)


async def command(
    websocket: WebSocket, protocol: str, wanted: Streams, start: Callable[[], Awaitable[Session]], *, attached: bool
) -> None:
    """Serve one exec or attach."""
    channels = Channels(websocket, protocol, readable=[STDIN, RESIZE] if wanted.stdin else [RESIZE])
    client = ClientStreams(
        error=Channel(channels, ERROR),
        structured=protocol.startswith(("v4.", "v5.")),
        stdin=Channel(channels, STDIN) if wanted.stdin else None,
        stdout=Channel(channels, STDOUT) if wanted.stdout else None,
        stderr=Channel(channels, STDERR) if wanted.stderr else None,
        resize=Channel(channels, RESIZE),
    )

    async def work() -> None:
        # Clients take the first message, which may be empty, as the sign that the connection stands.
        await (client.stdout or client.stderr or client.error).write(b"")
        await remote_command.run(start, client, attached=attached)
        await websocket.close()

    await while_client_stays(channels.serve(), work())


async def port_forward(
    websocket: WebSocket, protocol: str, runtime: StreamingRuntime, sandbox_id: str, ports: Sequence[int]
) -> None:
    """Serve one connection per port, until all have ended."""
    channels = Channels(websocket, protocol, readable=range(0, 2 * len(ports), 2))

    async def one(index: int, port: int) -> None:
        data, error = Channel(channels, 2 * index), Channel(channels, 2 * index + 1)
        for channel in (data, error):
            await channel.write(port.to_bytes(2, "little"))
        await forward(runtime, sandbox_id, port, data, error)

    async def work() -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for index, port in enumerate(ports):
                    group.create_task(one(index, port))
        except* ConnectionError as gone:
            raise ConnectionAbortedError("the client left") from gone
        await websocket.close()

    await while_client_stays(channels.serve(), work())
