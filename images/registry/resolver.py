"""Host names looked up in threads of their own.

getaddrinfo(3) blocks for as long as the servers in resolv.conf take not to answer. aiohttp would let it do so in the
event loop's own threads, of which there are few and which the whole daemon works with.
"""

from __future__ import annotations

import asyncio
import socket
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from aiohttp.abc import AbstractResolver, ResolveResult

THREADS = 16
NUMERIC = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV


class Resolver(AbstractResolver):
    """For one connection pool, which asks for each name once at a time, and remembers the answer for some seconds."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="resolver")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Every address of a host; raises OSError."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, partial(_look_up, host, port, family))

    async def close(self) -> None:
        """Look nothing up any more; who waits for a name server is not waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _look_up(host: str, port: int, family: socket.AddressFamily) -> list[ResolveResult]:
    found = []
    for kind, _, proto, _, address in socket.getaddrinfo(
        host, port, family, socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG
    ):
        # Only getnameinfo(3) names the interface of a link-local address, without which nobody can connect to it.
        numeric, _ = socket.getnameinfo(address, socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)
        found.append(ResolveResult(hostname=host, host=numeric, port=port, family=kind, proto=proto, flags=NUMERIC))
    return found
