"""Other people's programs as clients of a CRI socket: run one, get what it said.

grpcurl = Grpcurl(crid.socket)
version = await grpcurl.call("RuntimeService/Version")
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import pty
import struct
import termios
from pathlib import Path
from typing import Any, NamedTuple

from tests.support import peers

DEADLINE = 60.0  # seconds for any one command


class Said(NamedTuple):
    code: int
    out: bytes
    err: bytes


async def run(*command: str | Path, stdin: bytes | None = None) -> Said:
    """Runs it to its end. Raises TimeoutError after DEADLINE; the process is killed then."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL if stdin is None else asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(DEADLINE):
            out, err = await process.communicate(stdin)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return Said(process.returncode or 0, out, err)


async def run_in_terminal(*command: str | Path, rows: int = 24, columns: int = 80) -> Said:
    """Runs it to its end as the only user of a terminal of that size; what it wrote there is `out`."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    process = await asyncio.create_subprocess_exec(
        *command, stdin=slave, stdout=slave, stderr=slave, start_new_session=True
    )
    os.close(slave)
    out = b""
    try:
        code = await asyncio.wait_for(process.wait(), DEADLINE)
        with contextlib.suppress(OSError):  # EIO: all is read, and nobody has the other end any more
            while chunk := os.read(master, 4096):
                out += chunk
    finally:
        os.close(master)
    return Said(code, out, b"")


class Grpcurl:
    """grpcurl for one socket, by server reflection. Skips the test without grpcurl."""

    def __init__(self, socket: Path) -> None:
        self._binary = peers.require("grpcurl")
        self._socket = str(socket)

    async def ask(self, verb: str, *symbol: str) -> str:
        """`list` or `describe`: what it prints."""
        said = await run(self._binary, "-plaintext", "-unix", self._socket, verb, *symbol)
        assert said.code == 0, said.err.decode()
        return said.out.decode().strip()

    async def call(self, method: str, request: dict[str, Any] | None = None) -> Any:
        """One call of the package runtime.v1, "RuntimeService/Version": the answer."""
        said = await self.attempt(method, request)
        assert said.code == 0, said.err.decode()
        return json.loads(said.out)

    async def attempt(self, method: str, request: dict[str, Any] | None = None) -> Said:
        """The same when it may fail."""
        body = json.dumps(request or {})
        return await run(self._binary, "-plaintext", "-unix", "-d", body, self._socket, f"runtime.v1.{method}")
