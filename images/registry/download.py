"""A blob read to its end, although connections break and hosts fail.

What breaks off is continued where it broke off (RFC 9110, Range), on the same host as long as that makes progress,
then on the next one. Nothing is verified here: the bytes go to an Ingest, which knows the digest.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

import aiohttp

from images.documents import Descriptor
from images.errors import ImageError, ImageNotFound, RegistryError
from images.limits import Limits
from images.registry.client import Repository
from images.registry.hosts import PULL, Host
from images.registry.http import pieces
from images.registry.retries import pause, worth_retrying

#: What an attempt must bring, in bytes, not to count as one: a server that gives a little each time is not worked with.
PROGRESS = 1 << 20


class Download:
    """One blob of a repository, from `offset` on. Iterate over parts() once."""

    def __init__(self, repository: Repository, descriptor: Descriptor, offset: int, limits: Limits) -> None:
        self._repository = repository
        self._descriptor = descriptor
        self._offset = offset
        self._limits = limits
        self._deadline = time.monotonic() + limits.document_seconds + descriptor.size / limits.slowest
        self._failures: list[ImageError] = []
        self._complete = False

    async def parts(self) -> AsyncGenerator[bytes, None]:
        """The bytes in order; raises ImageNotFound, Unauthorized, RegistryError when no host gives all of them."""
        for host in self._repository.hosts(PULL):
            left = self._limits.attempts
            while left:
                before = self._offset
                async with aclosing(self._request(host)) as parts:
                    async for part in parts:
                        yield part
                if self._complete:
                    return
                left = self._attempts_left(left, progress=self._offset - before >= PROGRESS)
                await pause(self._limits.attempts - left, self._limits.first_pause)
        raise self._repository.verdict(self._failures, f"no host may give the blob {self._descriptor.digest}")

    def _attempts_left(self, left: int, *, progress: bool) -> int:
        """0 where another attempt cannot help, all of them again where the last one brought something."""
        last = self._failures[-1]
        if not isinstance(last, RegistryError) or not worth_retrying(last) or time.monotonic() > self._deadline:
            return 0
        return self._limits.attempts - 1 if progress else left - 1

    async def _request(self, host: Host) -> AsyncGenerator[bytes, None]:
        """What one request brings; a failure is noted, not raised."""
        try:
            async with self._repository.blob(host, self._descriptor.digest, self._offset) as response:
                async with aclosing(self._fresh(response)) as parts:
                    async for part in parts:
                        self._offset += len(part)
                        yield part
                        self._check_deadline(host)
            self._complete = True
        except (RegistryError, ImageNotFound) as error:
            self._failures.append(error)

    async def _fresh(self, response: aiohttp.ClientResponse) -> AsyncGenerator[bytes, None]:
        """The body without what we have: all up to the offset, from a server that knows nothing of ranges."""
        skip = self._offset if response.status == 200 else 0
        if response.status == 206:
            _check_range(response, self._offset)
        async with aclosing(pieces(response)) as body:
            async for piece in body:
                if skip < len(piece):
                    yield piece[skip:]
                skip = max(0, skip - len(piece))

    def _check_deadline(self, host: Host) -> None:
        if time.monotonic() > self._deadline:
            raise RegistryError(
                f"{host.name} is too slow: only {self._offset} of {self._descriptor.size} bytes of "
                f"{self._descriptor.digest} came in time",
                host.name,
            )


def _check_range(response: aiohttp.ClientResponse, offset: int) -> None:
    start = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("-")[0]
    if not start.isdecimal() or int(start) != offset:
        raise RegistryError(f"{response.url.host} answers another range than was asked for: {start[:40]!r}")
