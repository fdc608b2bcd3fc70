"""The gRPC side of crid: one handler per RPC of the descriptors, and what all of them have in common.

A handler is a plain coroutine (daemon, request) -> response, or an async generator for a stream; it knows no gRPC.
Around it, here and only here: a log line with object and duration, and the mapping of exceptions to status codes.
Calls that change something go on when their client leaves: half an effect is worse than an unread answer.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
from google.protobuf.message import Message

from cri.proto.services import Method, methods
from cri.server.errors import foreseen, status_of, words_of

if TYPE_CHECKING:
    from cri.server.daemon import Daemon

log = logging.getLogger("crid")

Unary = Callable[["Daemon", Any], Awaitable[Any]]
Stream = Callable[["Daemon", Any], AsyncIterator[Any]]

#: Asked every second by every client: worth a line only when they fail.
_QUIET = frozenset(
    name for name in methods() if name.startswith(("List", "Stream", "Version", "Status", "RuntimeConfig", "ExecSync"))
) | {"ContainerStatus", "PodSandboxStatus", "ImageStatus", "ImageFsInfo", "ContainerStats", "PodSandboxStats"}

#: These end when their client leaves; everything else that changes something runs to its end.
_ABANDONED = _QUIET | {"StopContainer", "PullImage", "Exec", "Attach", "PortForward", "GetContainerEvents"}

#: gRPC carries the details in a header, and clients refuse headers beyond 8 KiB.
_DETAILS_LIMIT = 4000


class Service:
    """Binds `answers`, RPC name to handler, to a server; refuses to start with one missing or unknown."""

    def __init__(self, daemon: Daemon, answers: Mapping[str, Unary | Stream]) -> None:
        self._daemon = daemon
        self._answers = answers
        self._running: set[asyncio.Task[Any]] = set()
        table = methods()
        if table.keys() != answers.keys():
            raise ValueError(f"not the interface's calls: {sorted(table.keys() ^ answers.keys())}")

    def add_to(self, server: grpc.aio.Server) -> None:
        by_service: dict[str, dict[str, Any]] = {}
        for method in methods().values():
            by_service.setdefault(method.service, {})[method.name] = self._handler(method)
        handlers = [grpc.method_handlers_generic_handler(name, calls) for name, calls in by_service.items()]
        server.add_generic_rpc_handlers(tuple(handlers))

    async def settle(self, timeout: float) -> None:
        """Wait up to `timeout` seconds for calls whose clients have left."""
        if self._running:
            await asyncio.wait(self._running, timeout=timeout)

    def _handler(self, method: Method) -> Any:
        answer: Any = self._answers[method.name]
        if method.streams:
            return grpc.unary_stream_rpc_method_handler(
                self._stream(method, answer), method.request.FromString, _serialize
            )
        return grpc.unary_unary_rpc_method_handler(self._unary(method, answer), method.request.FromString, _serialize)

    def _unary(self, method: Method, answer: Unary) -> Any:
        level = logging.DEBUG if method.name in _QUIET else logging.INFO
        abandoned = method.name in _ABANDONED

        async def handle(request: Message, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            started = time.perf_counter()
            try:
                call = answer(self._daemon, request)
                response = await (call if abandoned else self._to_the_end(call))
            except asyncio.CancelledError:
                log.info("%s %s: the client left after %s", method.name, subject(request), _since(started))
                raise
            except Exception as error:  # noqa: BLE001 - the boundary: whatever it is, the client gets a status
                await _refuse(method, request, context, error, started)
            if log.isEnabledFor(level):
                log.log(
                    level,
                    "%s %s: %s in %s",
                    method.name,
                    subject(request),
                    subject(response) or "done",
                    _since(started),
                )
            return response

        return handle

    def _stream(self, method: Method, answer: Stream) -> Any:
        async def handle(request: Message, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[Any]:
            started = time.perf_counter()
            try:
                async for response in answer(self._daemon, request):
                    yield response
            except Exception as error:  # noqa: BLE001 - the boundary, as above
                await _refuse(method, request, context, error, started)

        return handle

    async def _to_the_end(self, call: Awaitable[Any]) -> Any:
        task = asyncio.ensure_future(call)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(_log_unread)
            raise


def _log_unread(task: asyncio.Task[Any]) -> None:
    """The outcome of a call whose client has left."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.warning("a call whose client had left failed: %s", words_of(error))


async def _refuse(method: Method, request: Message, context: Any, error: Exception, started: float) -> None:
    """End the call with the error's status; the log tells more where the error was not foreseen."""
    code, words = status_of(error), words_of(error)
    if method.name in _QUIET and code is grpc.StatusCode.NOT_FOUND:
        level = logging.INFO  # kubelets ask for the status of what they have just removed
    else:
        level = logging.WARNING if foreseen(error) and code is not grpc.StatusCode.INTERNAL else logging.ERROR
    line = "%s %s: %s after %s: %s"
    log.log(level, line, method.name, subject(request), code.name, _since(started), words, exc_info=not foreseen(error))
    await context.abort(code, words[:_DETAILS_LIMIT])


def subject(request: Any) -> str:
    """The object of a request for the log: the short id or the name it carries."""
    for name in ("container_id", "pod_sandbox_id"):
        if id := getattr(request, name, ""):
            return str(id)[:13]
    image = getattr(getattr(request, "image", None), "image", "")
    if image:
        return str(image)[:200]
    metadata = getattr(getattr(request, "config", None), "metadata", None)
    return f"{metadata.namespace}/{metadata.name}"[:200] if metadata is not None else ""  # RunPodSandbox


def _since(started: float) -> str:
    return f"{(time.perf_counter() - started) * 1000:.1f} ms"


def _serialize(message: Message) -> bytes:
    return message.SerializeToString()
