"""Sessions of SPDY clients: which streams they open, and what is done on them.

Exec and attach: one stream per header streamType (error, stdin, stdout, stderr, resize), all opened before anything
starts. PortForward: a pair per connection, streamType data and error, joined by the header requestID.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from cri.server.streaming import remote_command
from cri.server.streaming.endpoints import while_client_stays
from cri.server.streaming.port_forward import forward
from cri.server.streaming.remote_command import ClientStreams
from cri.server.streaming.runtime import Session, StreamingRuntime, Streams
from cri.server.streaming.spdy.session import Refused
from cri.server.streaming.spdy.session import Session as SpdySession
from cri.server.streaming.spdy.stream import Stream
from cri.server.streaming.wire import Wire

log = logging.getLogger(__name__)

COMMAND_PROTOCOLS = ("v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io")
FORWARD_PROTOCOLS = ("portforward.k8s.io",)
_WITH_RESIZE = COMMAND_PROTOCOLS[:2]
_WITH_STATUS = COMMAND_PROTOCOLS[:1]

CREATION_TIMEOUT = 30.0  # seconds for a client to open the streams that belong together


async def command(
    wire: Wire, protocol: str, wanted: Streams, start: Callable[[], Awaitable[Session]], *, attached: bool
) -> None:
    """Serve one exec or attach from the client's first stream to its last frame."""
    expected = {"error"} | {name for name in ("stdin", "stdout", "stderr") if getattr(wanted, name)}
    if wanted.tty and protocol in _WITH_RESIZE:
        expected.add("resize")
    arrivals = _Arrivals(expected)
    spdy = SpdySession(wire, arrivals.add)

    async def work() -> None:
        opened = await arrivals.all()
        client = ClientStreams(
            error=opened["error"],
            structured=protocol in _WITH_STATUS,
            stdin=opened.get("stdin"),
            stdout=opened.get("stdout"),
            stderr=opened.get("stderr"),
            resize=opened.get("resize"),
        )
        await remote_command.run(start, client, attached=attached)
        await spdy.finish()

    await while_client_stays(spdy.serve(), work())


class _Arrivals:
    """Collects the streams of one exec or attach until all that are expected are there."""

    def __init__(self, expected: set[str]) -> None:
        self._expected = expected
        self._opened: dict[str, Stream] = {}
        self._complete = asyncio.Event()

    def add(self, stream: Stream) -> None:
        kind = stream.headers.get("streamtype", "")
        if kind not in self._expected or kind in self._opened:
            raise Refused(f"stream type {kind!r}, expected are {', '.join(sorted(self._expected))}, each once")
        self._opened[kind] = stream
        if kind not in ("stdin", "resize"):
            stream.discard()
        if len(self._opened) == len(self._expected):
            self._complete.set()

    async def all(self) -> dict[str, Stream]:
        """By their type. Raises ConnectionAbortedError when the client does not open them in time."""
        try:
            async with asyncio.timeout(CREATION_TIMEOUT):
                await self._complete.wait()
        except TimeoutError as late:
            missing = ", ".join(sorted(self._expected - set(self._opened)))
            log.warning("streaming client did not open %s within %.0f s", missing, CREATION_TIMEOUT)
            raise ConnectionAbortedError("streams are missing") from late
        return self._opened


async def port_forward(wire: Wire, runtime: StreamingRuntime, sandbox_id: str) -> None:
    """Serve the pairs that a client opens, until it leaves."""
    pairs = _Pairs(lambda port, data, error: forward(runtime, sandbox_id, port, data, error))
    try:
        await SpdySession(wire, pairs.add).serve()
    finally:
        await pairs.close()


class _Pairs:
    """Joins data and error streams by their requestID and starts `connect` for each whole pair."""

    def __init__(self, connect: Callable[[int, Stream, Stream], Coroutine[Any, Any, None]]) -> None:
        self._connect = connect
        self._halves: dict[str, tuple[Stream, asyncio.TimerHandle]] = {}
        self._running: set[asyncio.Task[None]] = set()

    def add(self, stream: Stream) -> None:
        kind, port = stream.headers.get("streamtype", ""), stream.headers.get("port", "")
        if kind not in ("data", "error"):
            raise Refused(f"stream type {kind!r}, expected data or error")
        if not port.isascii() or not port.isdigit() or not 0 < int(port[:6]) < 1 << 16:
            raise Refused(f"header port {port!r} is no port number")
        request_id = stream.headers.get("requestid") or _implied_request_id(stream, kind)
        if kind == "error":
            stream.discard()
        half, timer = self._halves.pop(request_id, (None, None))
        if half is None or timer is None:
            expiry = asyncio.get_running_loop().call_later(CREATION_TIMEOUT, self._expire, request_id)
            self._halves[request_id] = (stream, expiry)
            return
        timer.cancel()
        if half.headers["streamtype"] == kind:
            raise Refused(f"second {kind} stream for request {request_id!r}")
        data, error = (stream, half) if kind == "data" else (half, stream)
        self._spawn(self._connect(int(port), data, error))

    async def close(self) -> None:
        for _, timer in self._halves.values():
            timer.cancel()
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    def _expire(self, request_id: str) -> None:
        log.warning("port-forward request %r had one stream only for %.0f s", request_id, CREATION_TIMEOUT)
        half, _ = self._halves.pop(request_id)
        self._spawn(half.reset())

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        failure = None if task.cancelled() else task.exception()
        if failure is not None and not isinstance(failure, ConnectionError):
            log.error("port-forward failed", exc_info=failure)


def _implied_request_id(stream: Stream, kind: str) -> str:
    """Clients older than the header open the error stream first and the data stream next: ids n and n + 2."""
    return f"stream {stream.stream_id if kind == 'error' else stream.stream_id - 2}"
