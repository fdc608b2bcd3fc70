"""The boundary: exceptions become statuses with words, and changes go on when their client leaves."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from cri.client import CriClient, CriError
from cri.proto import api_pb2 as api
from cri.proto.services import methods
from cri.server.errors import NotFound, status_of, words_of
from cri.server.listening import bind, exclusive
from cri.server.service import Service
from runtime.linux.database import DatabaseFull
from runtime.linux.exclusive import Taken

finished = asyncio.Event()


async def unknown(daemon: Any, request: Any) -> Any:
    raise NotFound(f"no container {request.container_id!r} here")


async def slow(daemon: Any, request: Any) -> Any:
    await asyncio.sleep(0.2)
    daemon.append("done")
    return api.StopPodSandboxResponse()


async def broken(daemon: Any, request: Any) -> Any:
    raise RuntimeError("surprise")


async def nothing(daemon: Any, request: Any) -> Any:
    return methods()["Version"].response()


async def no_stream(daemon: Any, request: Any) -> AsyncIterator[Any]:
    raise NotFound("nothing to stream")
    yield


def answers() -> dict[str, Any]:
    table = {name: no_stream if method.streams else nothing for name, method in methods().items()}
    return {**table, "ContainerStatus": unknown, "StopPodSandbox": slow, "Status": broken}


@pytest.fixture
async def served(short_path: Path) -> AsyncIterator[tuple[CriClient, list[str], Service]]:
    done: list[str] = []
    service = Service(done, answers())  # type: ignore[arg-type]
    server = grpc.aio.server()
    service.add_to(server)
    bind(server, short_path / "cri.sock")
    await server.start()
    async with CriClient(short_path / "cri.sock") as client:
        yield client, done, service
    await server.stop(None)


async def test_errors_become_statuses(served: tuple[CriClient, list[str], Service]) -> None:
    client, _, _ = served
    with pytest.raises(CriError, match="no container 'x' here") as caught:
        await client.ContainerStatus(container_id="x")
    assert caught.value.code == "NOT_FOUND"
    with pytest.raises(CriError, match="unexpected RuntimeError: surprise") as caught:
        await client.Status()
    assert caught.value.code == "INTERNAL"
    with pytest.raises(CriError, match="nothing to stream"):
        [_ async for _ in client.StreamImages()]


async def test_a_change_goes_on_when_its_client_leaves(served: tuple[CriClient, list[str], Service]) -> None:
    client, done, service = served
    with pytest.raises(CriError) as caught:
        await client.StopPodSandbox(pod_sandbox_id="x", timeout=0.05)
    assert caught.value.code == "DEADLINE_EXCEEDED"
    await service.settle(5)
    assert done == ["done"]


def test_a_missing_answer_is_found_at_start() -> None:
    table = answers()
    del table["ExecSync"]
    with pytest.raises(ValueError, match="ExecSync"):
        Service([], table)  # type: ignore[arg-type]


def test_words_carry_the_notes() -> None:
    error = OSError(errno.ENOSPC, "No space left on device", "/x")
    error.add_note("mkdir('/x')")
    assert status_of(error).name == "RESOURCE_EXHAUSTED"
    assert words_of(error) == "[Errno 28] No space left on device: '/x'; mkdir('/x')"


def test_a_missing_file_is_not_the_object_of_the_request() -> None:
    error = FileNotFoundError(errno.ENOENT, "No such file or directory", "/opt/cni/bin/bridge")
    assert status_of(error).name == "FAILED_PRECONDITION"
    assert status_of(NotFound("no container")).name == "NOT_FOUND"


def test_a_full_disk_is_told_as_one() -> None:
    assert status_of(DatabaseFull("")).name == "RESOURCE_EXHAUSTED"
    assert words_of(DatabaseFull("disk is full; free space")) == "disk is full; free space"


async def test_the_socket_is_private_and_a_dead_one_is_replaced(short_path: Path) -> None:
    path = short_path / "cri.sock"
    for _ in range(2):
        server = grpc.aio.server()
        bind(server, path)
        await server.start()
        assert path.stat().st_mode & 0o777 == 0o600
        second = grpc.aio.server()
        with pytest.raises(Taken, match="another process listens on"):
            bind(second, path)
        await server.stop(None)
        import socket

        path.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(path))


def test_one_daemon_per_directory(short_path: Path) -> None:
    with exclusive(short_path / "state"):
        assert (short_path / "state").stat().st_mode & 0o777 == 0o700
        with pytest.raises(Taken, match="--root and --state"), exclusive(short_path / "state"):
            pass
    with exclusive(short_path / "state"):
        pass
