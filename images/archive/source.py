"""One image of an archive as a source."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from functools import partial

from images.archive.files import CHUNK, Files
from images.digest import Digest
from images.documents import Descriptor
from images.errors import DigestMismatch
from images.limits import Limits
from images.source import Fetched


class ArchiveSource:
    """An image.source.Source; `member` tells the file that holds the content of a digest."""

    def __init__(self, name: str, files: Files, top: Fetched, member: Callable[[Digest], str], limits: Limits) -> None:
        self.name = name
        self._files = files
        self._top = top
        self._member = member
        self._limits = limits

    async def manifest(self, digest: Digest | None = None) -> Fetched:
        """The image or index, or one that the index names."""
        if digest is None:
            return self._top
        limit = self._limits.manifest
        body = await asyncio.to_thread(self._files.read, self._member(digest), 0, limit + 1)
        hasher = digest.hasher()
        hasher.update(body)
        if not digest.matches(hasher):
            raise DigestMismatch(f"{self.name}: the file of {digest} holds something else, or more than {limit} bytes")
        return Fetched(body, "", digest)

    async def parts(self, descriptor: Descriptor, offset: int) -> AsyncGenerator[bytes, None]:
        """A blob from `offset` on."""
        member = self._member(descriptor.digest)
        while part := await asyncio.to_thread(partial(self._files.read, member, offset, CHUNK)):
            offset += len(part)
            yield part
