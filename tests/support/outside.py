"""Other people's programs as clients of a CRI socket: run one, get what it said.

crictl = Crictl(crid.socket)
code, out, err = await crictl("exec", "-i", container, "cat", stdin=b"x")
"""

from __future__ import annotations

import asyncio
import json
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


class Crictl:
    """crictl for one socket; its configuration file is written into `home`. Skips the test without crictl."""

    def __init__(self, socket: Path, home: Path) -> None:
        config = home / "crictl.yaml"
        config.write_text(f"runtime-endpoint: unix://{socket}\nimage-endpoint: unix://{socket}\ntimeout: 30\n")
        self.command: list[str] = [str(peers.require("crictl")), "--config", str(config)]

    async def __call__(self, *arguments: str | Path, stdin: bytes | None = None) -> Said:
        return await run(*self.command, *arguments, stdin=stdin)

    async def text(self, *arguments: str | Path) -> str:
        """stdout of a command that has to succeed."""
        said = await self(*arguments)
        assert said.code == 0, f"crictl {' '.join(map(str, arguments))}: {said.err.decode()}"
        return said.out.decode().strip()

    async def json(self, verb: str, *arguments: str | Path) -> Any:
        return json.loads(await self.text(verb, "-o", "json", *arguments))


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
