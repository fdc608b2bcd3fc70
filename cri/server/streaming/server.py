"""The HTTP server behind the URLs that Exec, Attach and PortForward return.

Listens on loopback unless told otherwise; a request needs a token that an RPC has issued before. One task per
connection, which owns everything that the session opens, so that ending the task ends all of it.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import ssl

from cri.server.streaming import negotiation, requests
from cri.server.streaming.http import Exchange, Refusal, Request
from cri.server.streaming.requests import Accepted, Command
from cri.server.streaming.runtime import StreamingRuntime
from cri.server.streaming.tokens import Tokens
from cri.server.streaming.wire import CHUNK, Connection

log = logging.getLogger(__name__)

HEAD_TIMEOUT = 10.0  # seconds for a client to send its request
LINGER = 5.0  # seconds for a client to close after the session's last byte
IDLE_TIMEOUT = 4 * 3600.0  # seconds without a byte in either direction, as the kubelet's streaming library has it
MAX_CONNECTIONS = 4096
#: Connections that have shown no token yet. Everybody on this host can make them, a container on its network included;
#: beyond this many the oldest is cut, and a client that has a URL shows it at once.
MAX_STRANGERS = 256


class StreamingServer:
    """`start` before the first `prepare_*`. With `tls`, the URLs are https and clients must speak it."""

    def __init__(
        self,
        runtime: StreamingRuntime,
        host: str = "127.0.0.1",
        port: int = 0,
        tls: ssl.SSLContext | None = None,
        idle_timeout: float = IDLE_TIMEOUT,
    ) -> None:
        self._runtime = runtime
        self._host = host
        self._port = port
        self._tls = tls
        self._idle_timeout = idle_timeout
        self._tokens: Tokens[Accepted] = Tokens()
        self._tasks: set[asyncio.Task[None]] = set()
        self._strangers: dict[asyncio.Task[None] | None, None] = {}  # in the order of their coming
        self._server: asyncio.Server | None = None
        self.base_url = ""

    async def start(self) -> None:
        """Listen; port 0 takes a free one. Raises OSError."""
        timeout = HEAD_TIMEOUT if self._tls else None
        self._server = await asyncio.start_server(
            self._accept, self._host, self._port, ssl=self._tls, limit=CHUNK, ssl_handshake_timeout=timeout
        )
        if self._tls is None and not ipaddress.ip_address(self._host).is_loopback:
            log.warning(
                "streaming listens on %s without TLS: who reads the network can take a URL, and with it a shell in a "
                "container; set [streaming] tls_cert and tls_key",
                self._host,
            )
        port = self._server.sockets[0].getsockname()[1]
        shown = f"[{self._host}]" if ":" in self._host else self._host
        self.base_url = f"{'https' if self._tls else 'http'}://{shown}:{port}"

    async def close(self) -> None:
        """Stop listening and end every session; commands that run in them are killed. Idempotent."""
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def prepare_exec(self, request: requests.ExecRequest) -> str:
        """The URL at which a client can run the command, once, within a minute.

        Raises InvalidStreamRequest, TooManyTokens.
        """
        return f"{self.base_url}/exec/{self._tokens.issue(requests.exec_of(request))}"

    def prepare_attach(self, request: requests.AttachRequest) -> str:
        """As `prepare_exec`, for the streams of the container's own process."""
        return f"{self.base_url}/attach/{self._tokens.issue(requests.attach_of(request))}"

    def prepare_port_forward(self, request: requests.PortForwardRequest) -> str:
        """As `prepare_exec`, for ports of a sandbox."""
        return f"{self.base_url}/portforward/{self._tokens.issue(requests.forwarding_of(request))}"

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._tasks) >= MAX_CONNECTIONS:
            log.warning("streaming connection refused: %d are open", MAX_CONNECTIONS)
            writer.transport.abort()
            return
        task = asyncio.create_task(self._serve(Connection(reader, writer, self._idle_timeout)))
        self._tasks.add(task)
        self._strangers[task] = None
        task.add_done_callback(self._ended)
        if len(self._strangers) > MAX_STRANGERS and (oldest := next(iter(self._strangers))) is not None:
            del self._strangers[oldest]
            oldest.cancel()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._strangers.pop(task, None)

    async def _serve(self, connection: Connection) -> None:
        try:
            await self._converse(connection)
            await connection.finish(LINGER)
        except (ConnectionError, TimeoutError) as error:
            log.debug("streaming client left: %s", error)
        except Exception:
            log.exception("streaming connection failed")
        finally:
            await connection.close()

    async def _converse(self, connection: Connection) -> None:
        exchange = Exchange(connection)
        try:
            async with asyncio.timeout(HEAD_TIMEOUT):
                request = await exchange.request()
            accepted = self._redeem(request)
            self._strangers.pop(asyncio.current_task(), None)
            await negotiation.serve(self._runtime, connection, exchange, request, accepted)
        except Refusal as refusal:
            log.info("streaming request refused: %s", refusal)
            await exchange.refuse(refusal)

    def _redeem(self, request: Request) -> Accepted:
        """The RPC's request behind the URL; the token is used up even if the client then asks for the wrong thing."""
        if request.method not in ("GET", "POST"):
            raise Refusal(405, "only GET and POST", [("Allow", "GET, POST")])
        _, _, rest = request.path.partition("/")
        verb, _, token = rest.partition("/")
        accepted = self._tokens.redeem(token)
        if accepted is None or verb != _verb(accepted):
            raise Refusal(404, "no such session: a URL works once and for one minute")
        return accepted


def _verb(accepted: Accepted) -> str:
    if isinstance(accepted, Command):
        return "attach" if accepted.argv is None else "exec"
    return "portforward"
