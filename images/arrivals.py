"""Blobs on their way into the content store: each one once, however many images wait for it, a few at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from functools import partial

from images.blobs import Growth
from images.content import ContentStore
from images.digest import Digest
from images.documents import Descriptor
from images.errors import DiskFull, ImageError, disk_full_explained
from images.flights import Flights
from images.limits import Limits
from images.source import Source
from images.workers import Workers

Count = Callable[[int], None]


class Arrival:
    """A blob that is coming, or that is here."""

    def __init__(self, growth: Growth, task: asyncio.Task[None] | None) -> None:
        self.growth = growth
        self._task = task

    async def complete(self) -> None:
        """Return once the blob is here and verified; raises ImageError, OSError."""
        if self._task is not None:
            await asyncio.shield(self._task)


class Arrivals:
    """Fetches blobs."""

    def __init__(self, content: ContentStore, workers: Workers, limits: Limits) -> None:
        self._content = content
        self._workers = workers
        self._slots = asyncio.Semaphore(limits.downloads)
        self._flights: Flights[None] = Flights()
        self._growing: dict[Digest, Growth] = {}

    @asynccontextmanager
    async def arriving(self, descriptor: Descriptor, source: Source, count: Count) -> AsyncIterator[Arrival]:
        """A blob from here or from `source`; `count` is told of bytes as they come.

        Leaving the block gives the blob up, unless others wait for it too.
        """
        if self._content.has(descriptor):
            yield Arrival(self._content.growth(descriptor), None)
            return
        async with self._flights.aboard(descriptor.digest, lambda: self._fetch(descriptor, source, count)) as task:
            yield Arrival(self._growing.setdefault(descriptor.digest, Growth()), task)

    async def _fetch(self, descriptor: Descriptor, source: Source, count: Count) -> None:
        growth = self._growing.setdefault(descriptor.digest, Growth())
        try:
            async with self._slots:
                with disk_full_explained(f"downloading {descriptor.digest}"):
                    await self._receive(descriptor, source, growth, count)
        except BaseException as error:
            if isinstance(error, DiskFull):  # nothing that could be resumed is worth the space now
                await self._workers.run(partial(self._content.discard, descriptor.digest))
            growth.fail(error if isinstance(error, Exception) else ImageError("the download was given up"))
            raise
        finally:
            self._growing.pop(descriptor.digest, None)

    async def _receive(self, descriptor: Descriptor, source: Source, growth: Growth, count: Count) -> None:
        ingest = await self._workers.run(lambda: self._content.ingest(descriptor, growth))
        with ingest:
            await self._workers.run(ingest.resume)
            count(ingest.offset)
            if ingest.offset < descriptor.size:
                async with aclosing(source.parts(descriptor, ingest.offset)) as parts:
                    async for part in parts:
                        await self._workers.run(partial(ingest.write, part))
                        count(len(part))
            await self._workers.run(ingest.commit)

    async def close(self) -> None:
        """Give up everything that is under way; what has come stays for a later attempt."""
        await self._flights.close()
