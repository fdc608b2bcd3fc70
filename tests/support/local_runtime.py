"""A StreamingRuntime without containers: commands are local processes, ports are local ports.

What it hands to the streaming server are real pipes and real pseudo-terminals, as the real runtime does; only
the isolation is missing, which the streaming does not care for.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import socket
import struct
import termios
from collections.abc import Sequence

from cri.server.streaming.runtime import StreamingError, Streams


class LocalSession:
    """A process that runs; see cri.server.streaming.runtime.Session."""

    def __init__(self, process: asyncio.subprocess.Process, stdin: int | None, stdout: int | None, stderr: int | None):
        self.process = process
        self.stdin, self.stdout, self.stderr = stdin, stdout, stderr
        self.master = os.dup(stdout) if stdout is not None and os.isatty(stdout) else None
        self.closed = False

    async def wait(self) -> int:
        code = await self.process.wait()
        return 128 - code if code < 0 else code

    async def resize(self, rows: int, columns: int) -> None:
        if self.master is None:
            raise StreamingError("there is no terminal")
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    async def close(self) -> None:
        self.closed = True
        if self.master is not None:
            os.close(self.master)
            self.master = None
        if self.process.returncode is None:
            self.process.kill()
            await self.process.wait()


class LocalRuntime:
    """`sessions` are all that were ever started; `attach` runs `attached_command` as the container's process."""

    def __init__(self) -> None:
        self.sessions: list[LocalSession] = []
        self.attached_command: Sequence[str] = ("cat",)

    async def exec(self, container_id: str, command: Sequence[str], streams: Streams) -> LocalSession:
        session = await (_with_terminal(command) if streams.tty else _with_pipes(command, streams))
        self.sessions.append(session)
        return session

    async def attach(self, container_id: str, streams: Streams) -> LocalSession:
        return await self.exec(container_id, self.attached_command, streams)

    async def connect(self, sandbox_id: str, port: int) -> socket.socket:
        connection = socket.socket()
        connection.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", port))
        except BaseException:
            connection.close()
            raise
        return connection

    @property
    def all_closed(self) -> bool:
        return all(session.closed and session.process.returncode is not None for session in self.sessions)


async def _with_pipes(command: Sequence[str], streams: Streams) -> LocalSession:
    pipes = [os.pipe() if wanted else None for wanted in (streams.stdin, streams.stdout, streams.stderr)]
    theirs = [(pair[0] if index == 0 else pair[1]) if pair else None for index, pair in enumerate(pipes)]
    ours = [(pair[1] if index == 0 else pair[0]) if pair else None for index, pair in enumerate(pipes)]
    try:
        process = await _spawn(command, theirs)
    except BaseException:
        _close(ours)
        raise
    finally:
        _close(theirs)
    return LocalSession(process, *ours)


async def _with_terminal(command: Sequence[str]) -> LocalSession:
    master, slave = pty.openpty()
    try:
        process = await _spawn(command, [slave, slave, slave])
    except BaseException:
        os.close(master)
        raise
    finally:
        os.close(slave)
    return LocalSession(process, os.dup(master), master, None)


async def _spawn(command: Sequence[str], ends: Sequence[int | None]) -> asyncio.subprocess.Process:
    stdin, stdout, stderr = (asyncio.subprocess.DEVNULL if end is None else end for end in ends)
    try:
        return await asyncio.create_subprocess_exec(
            *command, stdin=stdin, stdout=stdout, stderr=stderr, start_new_session=True
        )
    except FileNotFoundError as error:
        raise StreamingError(f'exec: "{command[0]}": executable file not found in $PATH') from error


def _close(ends: Sequence[int | None]) -> None:
    for end in ends:
        if end is not None:
            os.close(end)
