"""The client against a small gRPC server: messages, keywords, streams, errors, deadlines."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from cri.client import CriClient, CriClientSync, CriError
from cri.proto import api_pb2 as api
from cri.proto.services import methods


async def version(request: Any, context: Any) -> Any:
    return api.VersionResponse(version="v1", runtime_name=request.version)


async def stop(request: Any, context: Any) -> Any:
    if request.container_id == "slow":
        await asyncio.sleep(30)
    await context.abort(grpc.StatusCode.NOT_FOUND, f"container {request.container_id!r} is not here")


async def containers(request: Any, context: Any) -> AsyncIterator[Any]:
    for number in itertools.count() if request.filter.id == "endless" else range(3):
        yield api.StreamContainersResponse(containers=[api.Container(id=str(number))])


ANSWERS = {"Version": version, "StopContainer": stop, "StreamContainers": containers}


@pytest.fixture
async def address(short_path: Path) -> AsyncIterator[str]:
    server = grpc.aio.server()
    handlers = {}
    for name, answer in ANSWERS.items():
        method = methods()[name]
        make = grpc.unary_stream_rpc_method_handler if method.streams else grpc.unary_unary_rpc_method_handler
        handlers[name] = make(answer, method.request.FromString, method.response.SerializeToString)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("runtime.v1.RuntimeService", handlers),))
    server.add_insecure_port(f"unix:{short_path}/cri.sock")
    await server.start()
    yield f"{short_path}/cri.sock"
    await server.stop(None)


async def test_a_request_is_a_message_or_its_fields(address: str) -> None:
    async with CriClient(f"unix://{address}") as cri:
        assert (await cri.Version()).runtime_name == ""
        assert (await cri.Version(version="a")).runtime_name == "a"
        assert (await cri.Version(api.VersionRequest(version="b"))).runtime_name == "b"
        assert (await cri.Version(api.VersionRequest(), version="c")).runtime_name == "c"
        with pytest.raises(TypeError, match="takes VersionRequest"):
            await cri.Version(api.StatusRequest())
        with pytest.raises(AttributeError, match="no call 'Verzion'"):
            cri.Verzion  # noqa: B018


async def test_errors_carry_the_status_and_the_servers_words(address: str) -> None:
    async with CriClient(address) as cri:
        with pytest.raises(CriError, match="StopContainer: NOT_FOUND: container 'x' is not here") as caught:
            await cri.StopContainer(container_id="x")
        assert caught.value.code == "NOT_FOUND"
        with pytest.raises(CriError) as caught:
            await cri.StopContainer(container_id="slow", timeout=0.1)
        assert caught.value.code == "DEADLINE_EXCEEDED"


async def test_streams_end_and_can_be_left_early(address: str) -> None:
    async with CriClient(address) as cri:
        assert [m.containers[0].id async for m in cri.StreamContainers()] == ["0", "1", "2"]
        endless = api.StreamContainersRequest(filter=api.ContainerFilter(id="endless"))
        async for message in cri.StreamContainers(endless):
            if message.containers[0].id == "5":
                break


async def test_a_missing_socket_is_unavailable(short_path: Path) -> None:
    async with CriClient(short_path / "none.sock") as cri:
        with pytest.raises(CriError) as caught:
            await cri.Version(timeout=5)
        assert caught.value.code == "UNAVAILABLE"


async def test_the_blocking_client_does_the_same(address: str) -> None:
    def use() -> None:
        with CriClientSync(address) as cri:
            assert cri.Version(version="a").runtime_name == "a"
            assert [m.containers[0].id for m in cri.StreamContainers()] == ["0", "1", "2"]
            with pytest.raises(CriError, match="NOT_FOUND"):
                cri.StopContainer(container_id="x")

    await asyncio.to_thread(use)
