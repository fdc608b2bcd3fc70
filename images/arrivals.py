"""Blobs on their way into the content store: each one once, however many images wait for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing, asynccontextmanager
from functools import partial

from images.blobs import Growth
from images.content import ContentStore
from images.digest import Digest
from images.documents import Descriptor
from images.errors import DigestMismatch, DiskFull, ImageError, disk_full_explained
from images.flights import Flights
from images.transfer import Transfer
from images.workers import Workers


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

    def __init__(self, content: ContentStore, workers: Workers) -> None:
        self._content = content
        self._workers = workers
        self._flights: Flights[None] = Flights()
        self._growing: dict[Digest, Growth] = {}

    @asynccontextmanager
    async def arriving(self, descriptor: Descriptor, transfer: Transfer) -> AsyncIterator[Arrival]:
        """A blob from here, or else from where the transfer takes it.

        Leaving the block gives the blob up, unless others wait for it too.
        """
        if self._content.has(descriptor):
            yield Arrival(self._content.growth(descriptor), None)
            return
        async with self._flights.aboard(descriptor.digest, lambda: self._fetch(descriptor, transfer)) as task:
            yield Arrival(self._growing.setdefault(descriptor.digest, Growth()), task)

    async def _fetch(self, descriptor: Descriptor, transfer: Transfer) -> None:
        growth = self._growing.setdefault(descriptor.digest, Growth())
        try:
            async with transfer.downloads:
                with transfer.answerable(), disk_full_explained(f"downloading {descriptor.digest}"):
                    await self._receive(descriptor, transfer, growth)
        except BaseException as error:
            growth.fail(error if isinstance(error, Exception) else ImageError("the download was given up"))
            if isinstance(error, DigestMismatch | DiskFull):  # wrong bytes, or not worth their space now
                await self._workers.run(partial(self._content.discard, descriptor.digest))
            raise
        finally:
            self._growing.pop(descriptor.digest, None)

    async def _receive(self, descriptor: Descriptor, transfer: Transfer, growth: Growth) -> None:
        ingest = await self._workers.run(lambda: self._content.ingest(descriptor, growth))
        with ingest:
            await self._workers.run(ingest.resume)
            transfer.count(ingest.offset)
            if ingest.offset < descriptor.size:
                async with aclosing(transfer.source.parts(descriptor, ingest.offset)) as parts:
                    async for part in parts:
                        await self._workers.run(partial(ingest.write, part))
                        transfer.count(len(part))
            await self._workers.run(ingest.commit)

    def forget(self, digests: Iterable[Digest]) -> None:
        """Remove what broken downloads have left of these blobs, unless one of them comes again for somebody else.

        Blocks for the moment that unlinking takes: no such arrival may begin meanwhile.
        """
        for digest in digests:
            if digest not in self._growing:
                self._content.discard(digest)

    async def close(self) -> None:
        """Give up everything that is under way; what has come stays for a later attempt."""
        await self._flights.close()
