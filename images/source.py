"""Where images come from, as far as taking them in is concerned: a registry, an archive, or this program itself."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Protocol

from images.digest import Digest
from images.documents import Descriptor
from images.errors import ImageNotFound


@dataclass(frozen=True, slots=True)
class Fetched:
    """A manifest or an index, with the digest of exactly these bytes."""

    body: bytes
    media_type: str
    digest: Digest


class Source(Protocol):
    """One image, or an index of images, and their blobs; any failure is an ImageError."""

    @property
    def name(self) -> str:
        """What it is, for messages."""

    async def manifest(self, digest: Digest | None = None) -> Fetched:
        """The image or index itself, or one that the index names, verified."""

    def parts(self, descriptor: Descriptor, offset: int) -> AsyncGenerator[bytes, None]:
        """The bytes of a blob from `offset` on, not verified."""


class Memory:
    """A source whose image is here as bytes; `top` is its manifest, if that is asked for."""

    def __init__(self, name: str, blobs: Mapping[Digest, bytes], top: Fetched | None = None) -> None:
        self.name = name
        self._blobs = blobs
        self._top = top

    async def manifest(self, digest: Digest | None = None) -> Fetched:
        """The manifest; there is no other."""
        if self._top is None or digest not in (None, self._top.digest):
            raise ImageNotFound(f"{self.name} has no manifest {digest or ''}")
        return self._top

    async def parts(self, descriptor: Descriptor, offset: int) -> AsyncGenerator[bytes, None]:
        """A blob from `offset` on."""
        yield self._blobs[descriptor.digest][offset:]
