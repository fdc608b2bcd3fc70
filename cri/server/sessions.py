"""What the streaming server runs on: commands, attachments and connections, made of pods and their shims."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
from collections.abc import Sequence

from cri.server.daemon import pod_of
from cri.server.pods import Container, Sandbox
from cri.server.specs.process import TERM
from cri.server.store import Store
from cri.server.streaming.runtime import Session, StreamingError, Streams
from runtime.client import ContainerError, Exec
from runtime.spec import ExecSpec

_LOOPBACKS = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))


class PodSessions:
    """StreamingRuntime on the store's live pods."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def exec(self, container_id: str, command: Sequence[str], streams: Streams) -> Session:
        container = self._running(container_id)
        environment = _with_term(container) if streams.tty else None
        spec = ExecSpec(
            id=secrets.token_hex(16),
            args=list(command),
            env=environment,
            tty=streams.tty,
            oom_score_adj=container.oom_score_adj,
        )
        try:
            if streams.tty:
                return await _with_terminal(container, spec, streams)
            return await _with_pipes(container, spec, streams)
        except (ContainerError, OSError) as error:
            raise StreamingError(f"exec {command[0]!r} in container {container.name}: {error}") from error

    async def attach(self, container_id: str, streams: Streams) -> Session:
        container = self._running(container_id)
        try:
            fds = await pod_of(container.sandbox).attach(container.id)
        except (ContainerError, OSError) as error:
            raise StreamingError(f"attach to container {container.name}: {error}") from error
        stdin = _wanted(fds.stdin, streams.stdin)
        stdout, stderr = _wanted(fds.stdout, streams.stdout), _wanted(fds.stderr, streams.stderr)
        return _AttachSession(container, stdin, stdout, stderr)

    async def connect(self, sandbox_id: str, port: int) -> socket.socket:
        sandbox = self._sandbox(sandbox_id)
        failures = []
        for family, address in _LOOPBACKS:
            try:
                return await _connected(sandbox, family, (address, port))
            except OSError as error:  # also where the host has no such family at all
                failures.append(f"{address}: {error.strerror or error}")
        raise StreamingError(f"nothing answers on port {port} of pod {sandbox.name} ({'; '.join(failures)})")

    def _running(self, id: str) -> Container:
        container = self._store.containers.find(id)
        if container is None or not container.running:
            raise StreamingError(f"container {id[:13]} does not run any more")
        return container

    def _sandbox(self, id: str) -> Sandbox:
        sandbox = self._store.sandboxes.find(id)
        if sandbox is None or not sandbox.ready:
            raise StreamingError(f"sandbox {id[:13]} is not ready any more")
        return sandbox


async def _connected(sandbox: Sandbox, family: int, address: tuple[str, int]) -> socket.socket:
    connection = await _socket(sandbox, family)
    try:
        await asyncio.get_running_loop().sock_connect(connection, address)
    except BaseException:
        connection.close()
        raise
    return connection


async def _socket(sandbox: Sandbox, family: int) -> socket.socket:
    """A non-blocking TCP socket of the pod's network namespace."""
    if sandbox.host_network:
        connection = socket.socket(family, socket.SOCK_STREAM)
    else:
        try:
            connection = await pod_of(sandbox).tcp_socket(family)
        except ContainerError as error:
            raise StreamingError(f"port-forward to pod {sandbox.name}: {error}") from error
    connection.setblocking(False)
    return connection


def _with_term(container: Container) -> list[str]:
    """The container's environment and a TERM, which what runs on a terminal looks for; the peers add the same."""
    environment: list[str] = container.spec.oci["process"]["env"]
    known = any(line.startswith("TERM=") for line in environment)
    return environment if known else [*environment, f"TERM={TERM}"]


async def _with_terminal(container: Container, spec: ExecSpec, streams: Streams) -> Session:
    running = await pod_of(container.sandbox).exec(container.id, spec)
    assert running.master is not None
    try:
        # Two fds of one terminal: the server closes each on its own.
        stdin = os.dup(running.master) if streams.stdin else None
        return _ExecSession(running, stdin, running.master, None)
    except OSError:
        os.close(running.master)
        await running.kill()
        raise


async def _with_pipes(container: Container, spec: ExecSpec, streams: Streams) -> Session:
    with contextlib.ExitStack() as ours, contextlib.ExitStack() as theirs:
        stdin_end, stdin = _pipe(streams.stdin, theirs, ours)
        stdout, stdout_end = _pipe(streams.stdout, ours, theirs)
        stderr, stderr_end = _pipe(streams.stderr, ours, theirs)
        running = await pod_of(container.sandbox).exec(
            container.id, spec, stdin=_fd(stdin_end), stdout=_fd(stdout_end), stderr=_fd(stderr_end)
        )
        ours.pop_all()
    return _ExecSession(running, stdin, stdout, stderr)


def _pipe(wanted: bool, readers: contextlib.ExitStack, writers: contextlib.ExitStack) -> tuple[int | None, int | None]:
    """A pipe whose ends are closed by the stacks of those who hold them; (None, None) when not wanted."""
    if not wanted:
        return None, None
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    readers.callback(os.close, read_end)
    writers.callback(os.close, write_end)
    return read_end, write_end


def _fd(end: int | None) -> int:
    return -1 if end is None else end


def _wanted(fd: int | None, wanted: bool) -> int | None:
    if fd is not None and not wanted:
        os.close(fd)
        return None
    return fd


class _ExecSession:
    """A command in a container."""

    def __init__(self, running: Exec, stdin: int | None, stdout: int | None, stderr: int | None) -> None:
        self.stdin, self.stdout, self.stderr = stdin, stdout, stderr
        self._running = running

    async def wait(self) -> int:
        try:
            return await self._running.wait()
        except ContainerError as error:
            raise StreamingError(str(error)) from error

    async def resize(self, rows: int, columns: int) -> None:
        try:
            await self._running.resize(rows, columns)
        except ContainerError as error:
            raise StreamingError(str(error)) from error

    async def close(self) -> None:
        with contextlib.suppress(ContainerError):  # the shim took the command with it
            await self._running.kill()


class _AttachSession:
    """The streams of a container's own process."""

    def __init__(self, container: Container, stdin: int | None, stdout: int | None, stderr: int | None) -> None:
        self.stdin, self.stdout, self.stderr = stdin, stdout, stderr
        self._container = container

    async def wait(self) -> int:
        await self._container.exited.wait()
        return self._container.exit_code

    async def resize(self, rows: int, columns: int) -> None:
        try:
            await pod_of(self._container.sandbox).resize(self._container.id, rows, columns)
        except ContainerError as error:
            raise StreamingError(str(error)) from error

    async def close(self) -> None:
        """Nothing: the fds are the server's, and the shim notices their end."""
