"""A registry as a source of images: one repository, seen through the hosts that stand for it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

from images.digest import Digest
from images.documents import Descriptor
from images.limits import Limits
from images.reference import Reference
from images.registry.client import Repository
from images.registry.credentials import Auth
from images.registry.download import Download
from images.registry.hosts import hosts_for
from images.registry.http import Http
from images.source import Fetched


class RegistrySource:
    """What a reference names (images.source.Source)."""

    def __init__(
        self, http: Http, reference: Reference, directories: Sequence[Path], auth: Auth | None, limits: Limits
    ) -> None:
        self.name = str(reference)
        self._limits = limits
        self._repository = Repository(http, reference, hosts_for(reference.domain, directories), auth, limits)

    async def manifest(self, digest: Digest | None = None) -> Fetched:
        """The image or index, or one that the index names."""
        return await self._repository.manifest(digest)

    def parts(self, descriptor: Descriptor, offset: int) -> AsyncGenerator[bytes, None]:
        """A blob from `offset` on."""
        return Download(self._repository, descriptor, offset, self._limits).parts()
