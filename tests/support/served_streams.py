"""A streaming server on loopback whose commands are local processes, as the unit tests of streaming use it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from cri.server.streaming import StreamingServer
from tests.support.local_runtime import LocalRuntime


@dataclass
class Served:
    """The server and what stands behind it; `exec_url` and the others do what the RPCs do."""

    server: StreamingServer
    runtime: LocalRuntime

    def exec_url(self, *command: str, **streams: bool) -> str:
        return self.server.prepare_exec(request(container_id="c1", cmd=command, **streams))

    def attach_url(self, **streams: bool) -> str:
        return self.server.prepare_attach(request(container_id="c1", **streams))

    def forward_url(self, *ports: int) -> str:
        return self.server.prepare_port_forward(request(pod_sandbox_id="p1", port=ports))


def request(**fields: Any) -> Any:
    """A request message by its fields; protobuf's own would have the same."""
    return SimpleNamespace(**{"stdin": False, "stdout": False, "stderr": False, "tty": False, **fields})


@asynccontextmanager
async def serving(**settings: Any) -> AsyncIterator[Served]:
    """Proves at its end that no process of a session is left."""
    runtime = LocalRuntime()
    server = StreamingServer(runtime, **settings)
    await server.start()
    try:
        yield Served(server, runtime)
    finally:
        await server.close()
    assert runtime.all_closed
