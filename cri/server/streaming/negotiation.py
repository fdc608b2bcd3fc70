"""Between the HTTP request and the session: which protocol the client gets, or why it gets none.

Upgrade: SPDY/3.1     versions in X-Stream-Protocol-Version, the first that both know is taken
Upgrade: websocket    versions as subprotocols; "SPDY/3.1+portforward.k8s.io" carries SPDY in its messages
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

from cri.server.streaming import over_spdy, over_websocket
from cri.server.streaming.channels import choose
from cri.server.streaming.http import Exchange, Refusal, Request
from cri.server.streaming.requests import Accepted, Command
from cri.server.streaming.runtime import Session, StreamingRuntime
from cri.server.streaming.websocket import HandshakeError, Tunnel, WebSocket
from cri.server.streaming.wire import Connection

_SPDY = "SPDY/3.1"
_VERSION = "X-Stream-Protocol-Version"


async def serve(
    runtime: StreamingRuntime, connection: Connection, exchange: Exchange, request: Request, accepted: Accepted
) -> None:
    """Upgrade the connection and serve the session. Raises Refusal before the upgrade, ConnectionError after."""
    if request.wants("websocket"):
        await _serve_websocket(runtime, connection, request, accepted)
    elif request.wants(_SPDY):
        await _serve_spdy(runtime, connection, exchange, request, accepted)
    else:
        raise Refusal(400, f"upgrade to websocket or {_SPDY} is required")


def _start(runtime: StreamingRuntime, accepted: Command) -> Callable[[], Awaitable[Session]]:
    if accepted.argv is None:
        return partial(runtime.attach, accepted.container_id, accepted.streams)
    return partial(runtime.exec, accepted.container_id, accepted.argv, accepted.streams)


async def _serve_spdy(
    runtime: StreamingRuntime, connection: Connection, exchange: Exchange, request: Request, accepted: Accepted
) -> None:
    is_command = isinstance(accepted, Command)
    supported = over_spdy.COMMAND_PROTOCOLS if is_command else over_spdy.FORWARD_PROTOCOLS
    offered = request.values(_VERSION.lower().encode())
    protocol = choose(offered, supported) if offered else None
    if protocol is None:
        known = [("X-Accepted-Stream-Protocol-Versions", name) for name in supported]
        raise Refusal(403 if offered else 400, f"header {_VERSION} must name one of {', '.join(supported)}", known)
    await exchange.switch(_SPDY, [(_VERSION, protocol)])
    if isinstance(accepted, Command):
        start, attached = _start(runtime, accepted), accepted.argv is None
        await over_spdy.command(connection, protocol, accepted.streams, start, attached=attached)
    else:
        await over_spdy.port_forward(connection, runtime, accepted.sandbox_id)


async def _serve_websocket(
    runtime: StreamingRuntime, connection: Connection, request: Request, accepted: Accepted
) -> None:
    if request.method != "GET":
        raise Refusal(405, "a WebSocket starts with GET", [("Allow", "GET")])
    try:
        websocket = WebSocket(connection, request.target, request.headers)
    except HandshakeError as error:
        raise Refusal(400, str(error)) from error
    is_command = isinstance(accepted, Command)
    tunnels = () if is_command else tuple(over_websocket.TUNNEL_PREFIX + name for name in over_spdy.FORWARD_PROTOCOLS)
    supported = over_websocket.COMMAND_PROTOCOLS if is_command else (*tunnels, *over_websocket.FORWARD_PROTOCOLS)
    protocol = choose(websocket.offered, supported)
    if protocol is None:
        raise Refusal(403, f"no such subprotocol, known are {', '.join(filter(None, supported))}")
    await websocket.accept(protocol or None)
    if isinstance(accepted, Command):
        start, attached = _start(runtime, accepted), accepted.argv is None
        await over_websocket.command(websocket, protocol, accepted.streams, start, attached=attached)
    elif protocol in tunnels:
        await over_spdy.port_forward(Tunnel(websocket), runtime, accepted.sandbox_id)
    else:
        await over_websocket.port_forward(websocket, protocol, runtime, accepted.sandbox_id, accepted.ports)
