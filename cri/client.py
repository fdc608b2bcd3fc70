"""A client for any CRI socket: ours, containerd's or CRI-O's.

    async with CriClient("/run/nodeagent/cri.sock") as cri:
        version = await cri.Version()
        await cri.StopContainer(api_pb2.StopContainerRequest(container_id=cid, timeout=10), timeout=30)
        async for event in cri.GetContainerEvents(timeout=None): ...

Every RPC of the interface is a method under its own name. It takes the request message, or the request's fields as
keywords, or both; a field that is called `timeout` needs the message, since the keyword `timeout` is the call's
deadline in seconds. Errors of the transport and of the server arrive as CriError, so that callers need no gRPC.
"""

from __future__ import annotations

import functools
import os
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Self

import grpc
import grpc.aio
from google.protobuf.message import Message

from cri.proto.services import Method, methods

#: Seconds a call may take when the caller names no deadline (the kubelet's runtimeRequestTimeout default).
DEFAULT_TIMEOUT = 120.0

#: Bytes. ExecSync alone may answer 16 MiB of stdout and of stderr, which is beyond the kubelet's own limit.
MAX_MESSAGE = 64 << 20

_OPTIONS: list[tuple[str, int]] = [
    ("grpc.max_receive_message_length", MAX_MESSAGE),
    ("grpc.max_send_message_length", MAX_MESSAGE),
    # A restarted daemon is back within a second; gRPC's own backoff grows to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 50),
    # By this name gRPC means the least time that an attempt to connect may take; a busy daemon needs more than 50 ms.
    ("grpc.min_reconnect_backoff_ms", 5000),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # Channels to one address share their connection by default, and then also its broken state.
    ("grpc.use_local_subchannel_pool", 1),
]


class CriError(Exception):
    """A call failed. `code` is the gRPC status name (NOT_FOUND, UNAVAILABLE, ...), `details` the server's words."""

    def __init__(self, method: str, code: str, details: str) -> None:
        super().__init__(f"{method}: {code}: {details}")
        self.method = method
        self.code = code
        self.details = details


def target(address: str | os.PathLike[str]) -> str:
    """gRPC's name of a unix socket given as a path or as unix:///path; other targets (dns:, host:port) pass."""
    text = os.fspath(address)
    return f"unix:{text}" if text.startswith("/") else text


def request_of(method: Method, message: Message | None, fields: dict[str, Any]) -> Message:
    """The request to send. Raises TypeError for a message of another call, ValueError for an unknown field."""
    if message is None:
        return method.request(**fields)
    if not isinstance(message, method.request):
        raise TypeError(f"{method.name} takes {method.request.__name__}, not {type(message).__name__}")
    if fields:
        message.MergeFrom(method.request(**fields))
    return message


class _Bound:
    """Attribute lookup makes the stub of a call once and keeps it in the instance."""

    def _bind(self, method: Method) -> Callable[..., Any]:
        raise NotImplementedError

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = methods().get(name)
        if method is None:
            raise AttributeError(f"the CRI has no call {name!r}")
        call = self._bind(method)
        setattr(self, name, call)
        return call


class CriClient(_Bound):
    """For asyncio; to be made and used within one running loop."""

    def __init__(self, address: str | os.PathLike[str]) -> None:
        self.address = os.fspath(address)
        self._channel = grpc.aio.insecure_channel(target(address), options=_OPTIONS)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        await self._channel.close()

    def _bind(self, method: Method) -> Callable[..., Any]:
        if method.streams:
            stream = self._channel.unary_stream(
                method.path, request_serializer=_serialize, response_deserializer=method.response.FromString
            )
            return functools.partial(_stream, method, stream)
        unary = self._channel.unary_unary(
            method.path, request_serializer=_serialize, response_deserializer=method.response.FromString
        )
        return functools.partial(_unary, method, unary)


async def _unary(
    method: Method,
    call: Any,
    message: Message | None = None,
    /,
    *,
    timeout: float | None = DEFAULT_TIMEOUT,
    wait_for_ready: bool = False,
    **fields: Any,
) -> Message:
    request = request_of(method, message, fields)
    try:
        answer: Message = await call(request, timeout=timeout, wait_for_ready=wait_for_ready)
    except grpc.aio.AioRpcError as error:
        raise _mapped(method, error) from error
    return answer


async def _stream(
    method: Method,
    call: Any,
    message: Message | None = None,
    /,
    *,
    timeout: float | None = DEFAULT_TIMEOUT,
    wait_for_ready: bool = False,
    **fields: Any,
) -> AsyncIterator[Message]:
    running = call(request_of(method, message, fields), timeout=timeout, wait_for_ready=wait_for_ready)
    try:
        async for answer in running:
            yield answer
    except grpc.aio.AioRpcError as error:
        raise _mapped(method, error) from error
    finally:
        running.cancel()


class CriClientSync(_Bound):
    """The same without asyncio, for scripts, benchmarks and tests; it may be shared by threads."""

    def __init__(self, address: str | os.PathLike[str]) -> None:
        self.address = os.fspath(address)
        self._channel = grpc.insecure_channel(target(address), options=_OPTIONS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._channel.close()

    def _bind(self, method: Method) -> Callable[..., Any]:
        kinds = {True: self._channel.unary_stream, False: self._channel.unary_unary}
        call = kinds[method.streams](
            method.path, request_serializer=_serialize, response_deserializer=method.response.FromString
        )
        return functools.partial(_stream_sync if method.streams else _unary_sync, method, call)


def _unary_sync(
    method: Method,
    call: Any,
    message: Message | None = None,
    /,
    *,
    timeout: float | None = DEFAULT_TIMEOUT,
    wait_for_ready: bool = False,
    **fields: Any,
) -> Message:
    request = request_of(method, message, fields)
    try:
        answer: Message = call(request, timeout=timeout, wait_for_ready=wait_for_ready)
    except grpc.RpcError as error:
        raise _mapped(method, error) from error
    return answer


def _stream_sync(
    method: Method,
    call: Any,
    message: Message | None = None,
    /,
    *,
    timeout: float | None = DEFAULT_TIMEOUT,
    wait_for_ready: bool = False,
    **fields: Any,
) -> Iterator[Message]:
    running = call(request_of(method, message, fields), timeout=timeout, wait_for_ready=wait_for_ready)
    try:
        yield from running
    except grpc.RpcError as error:
        raise _mapped(method, error) from error
    finally:
        running.cancel()


def _serialize(message: Message) -> bytes:
    return message.SerializeToString()


def _mapped(method: Method, error: Any) -> CriError:
    return CriError(method.name, error.code().name, error.details() or "")
