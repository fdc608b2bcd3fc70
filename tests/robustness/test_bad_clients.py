"""Clients that vanish in the middle of every call, send what is no request, or come by the thousand."""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
import socket
from pathlib import Path

import grpc
import grpc.aio
import pytest

from cri.client import CriError
from cri.proto import api_pb2 as api
from cri.proto.services import methods
from tests.support.neighbourhood import Neighbourhood
from tests.support.processes import eventually

ROUNDS = 8
IDLE = 1000
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
# What wild requests name; the last ones are ids as crid makes them.
WILD = ("", "..", "../../etc", "/", "\0", "x" * 100_000, "%s%n", "-1", "\u202e\ufeff", "*", "0" * 64, "f" * 13)


def descriptors(street: Neighbourhood) -> int:
    assert street.crid.process is not None
    return len(list(Path(f"/proc/{street.crid.process.pid}/fd").iterdir()))


@pytest.mark.parametrize("name", methods())
async def test_a_client_that_vanishes_in_the_middle_of_a_call(street: Neighbourhood, name: str) -> None:
    """Every call is given up after some milliseconds, its connection with it; what it has begun comes to an end."""
    pod = await street.crid.run_pod()
    id = await street.crid.run(pod, street.image, ["sleep", "100"])
    before = descriptors(street)
    for number in range(ROUNDS):
        method = methods()[name]
        async with grpc.aio.insecure_channel(f"unix:{street.crid.socket}") as channel:
            await channel.channel_ready()
            kind = channel.unary_stream if method.streams else channel.unary_unary
            call = kind(method.path, method.request.SerializeToString, method.response.FromString)(
                request_of(method.request, pod[0], id, street)
            )
            await asyncio.sleep(number / 1000)
            call.cancel()
    async with asyncio.timeout(20):
        while descriptors(street) > before + 4:
            await street.clean()  # pods that were begun are finished, by and by


def request_of(kind: type, pod: str, container: str, street: Neighbourhood) -> object:
    """A request that names real objects, so that the call gets to work."""
    request = kind()
    fields = kind.DESCRIPTOR.fields_by_name
    for field, value in (("pod_sandbox_id", pod), ("container_id", container)):
        if field in fields:
            setattr(request, field, value)
    match request:
        case api.RunPodSandboxRequest():
            request.config.CopyFrom(street.crid.pod_config("left"))
        case api.CreateContainerRequest():
            request.config.metadata.name = secrets.token_hex(4)
            request.config.image.image = street.image
        case api.ExecSyncRequest():
            request.cmd.extend(["sleep", "100"])
        case api.ExecRequest():
            request.cmd.append("true")
            request.stdout = True
        case api.AttachRequest():
            request.stdout = True
        case api.PullImageRequest():
            request.image.image = street.image
    return request


@pytest.mark.parametrize("wild", WILD, ids=range(len(WILD)))
async def test_ids_that_name_nothing(street: Neighbourhood, wild: str) -> None:
    for method in methods().values():
        fields = [
            name for name in ("container_id", "pod_sandbox_id") if name in method.request.DESCRIPTOR.fields_by_name
        ]
        if not fields or method.streams:
            continue
        request = method.request(**{fields[0]: wild})
        with contextlib.suppress(CriError):
            await getattr(street.crid.cri, method.name)(request, timeout=10)


async def test_requests_that_are_too_long(street: Neighbourhood) -> None:
    for size, code in ((15 << 20, "INVALID_ARGUMENT"), (17 << 20, "RESOURCE_EXHAUSTED")):
        config = street.crid.pod_config("big", annotations={"a": "x" * size})
        with pytest.raises(CriError) as refused:
            await street.crid.cri.RunPodSandbox(config=config)
        assert refused.value.code == code


@pytest.mark.parametrize(
    "payload",
    [b"\xff" * 10, b"\x0a\x02\xff\xfe", b"\x0a\xff\xff\xff\xff\x0f", b"\x0b" * 5000, secrets.token_bytes(10_000)],
    ids=["tags", "no UTF-8", "endless string", "groups", "random"],
)
async def test_messages_that_are_none(street: Neighbourhood, payload: bytes) -> None:
    """As the bytes of a request of every call, through a real gRPC client."""
    refused = 0
    async with grpc.aio.insecure_channel(f"unix:{street.crid.socket}") as channel:
        for method in methods().values():
            if not method.streams:
                call = channel.unary_unary(method.path, lambda sent: sent, lambda received: received)
                try:
                    await call(payload, timeout=10)
                except grpc.aio.AioRpcError as error:
                    refused += error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED
    assert refused > 20  # for some calls, those bytes are a request


async def test_bytes_that_are_no_http(street: Neighbourhood) -> None:
    """Random ones, another protocol's, and HTTP/2 that goes wrong; each on a connection of its own."""
    before = descriptors(street)
    rng = random.Random(7)
    sent = [b"GET / HTTP/1.1\r\n\r\n", b"\0" * 4096, PREFACE + b"\xff" * 100, PREFACE + bytes(8) + b"\1", b"\r\n" * 999]
    sent += [rng.randbytes(rng.randrange(1, 5000)) for _ in range(20)]
    sent += [PREFACE + rng.randbytes(rng.randrange(1, 5000)) for _ in range(20)]
    for data in sent:
        connection = connect(street)
        with contextlib.suppress(OSError):  # it may be closed on us at once
            connection.sendall(data)
        await asyncio.sleep(0)
        connection.close()
    await eventually(lambda: descriptors(street) <= before + 4)


async def test_a_thousand_idle_connections(street: Neighbourhood) -> None:
    before = descriptors(street)
    connections = [connect(street) for _ in range(IDLE)]
    try:
        for connection in connections[::2]:
            connection.sendall(PREFACE)
        await street.serves()
    finally:
        for connection in connections:
            connection.close()
    await eventually(lambda: descriptors(street) <= before + 4)


def connect(street: Neighbourhood) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(5)
    connection.connect(str(street.crid.socket))
    return connection
