"""The three RPC requests as the streaming server keeps them until their client comes: checked, and free of protobuf."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from cri.server.streaming.runtime import Streams

MAX_PORTS = 64  # of one port-forward request


class InvalidStreamRequest(ValueError):
    """An Exec, Attach or PortForward request that no session can be made of."""


class AttachRequest(Protocol):
    """The fields of the CRI's AttachRequest."""

    container_id: str
    stdin: bool
    stdout: bool
    stderr: bool
    tty: bool


class ExecRequest(AttachRequest, Protocol):
    """The fields of the CRI's ExecRequest."""

    @property
    def cmd(self) -> Iterable[str]: ...


class PortForwardRequest(Protocol):
    """The fields of the CRI's PortForwardRequest."""

    pod_sandbox_id: str

    @property
    def port(self) -> Iterable[int]: ...


@dataclass(frozen=True, slots=True)
class Command:
    """An accepted Exec, or an Attach where `argv` is None."""

    container_id: str
    streams: Streams
    argv: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class Forwarding:
    """An accepted PortForward. SPDY clients name their ports themselves, stream by stream."""

    sandbox_id: str
    ports: tuple[int, ...]


Accepted = Command | Forwarding


def exec_of(request: ExecRequest) -> Command:
    """Raises InvalidStreamRequest."""
    argv = tuple(request.cmd)
    if not argv:
        raise InvalidStreamRequest(f"exec in container {request.container_id!r}: cmd is empty")
    return Command(request.container_id, _streams("exec", request), argv)


def attach_of(request: AttachRequest) -> Command:
    """Raises InvalidStreamRequest."""
    return Command(request.container_id, _streams("attach", request), None)


def forwarding_of(request: PortForwardRequest) -> Forwarding:
    """Raises InvalidStreamRequest."""
    ports = tuple(request.port)
    if not request.pod_sandbox_id:
        raise InvalidStreamRequest("port-forward: pod_sandbox_id is missing")
    if len(ports) > MAX_PORTS or not all(0 < port < 1 << 16 for port in ports):
        raise InvalidStreamRequest(
            f"port-forward to {request.pod_sandbox_id!r}: at most {MAX_PORTS} ports are taken, each from 1 to 65535"
        )
    return Forwarding(request.pod_sandbox_id, ports)


def _streams(verb: str, request: AttachRequest) -> Streams:
    if not request.container_id:
        raise InvalidStreamRequest(f"{verb}: container_id is missing")
    if request.tty and request.stderr:
        raise InvalidStreamRequest(f"{verb} {request.container_id!r}: a terminal has no stderr, ask for stdout alone")
    if not (request.stdin or request.stdout or request.stderr):
        raise InvalidStreamRequest(f"{verb} {request.container_id!r}: none of stdin, stdout and stderr is wanted")
    return Streams(request.stdin, request.stdout, request.stderr, request.tty)
