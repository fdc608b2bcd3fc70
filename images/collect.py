"""Garbage collection: blobs and layers that no image, no container and no lease refers to."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from images.catalog import Catalog
from images.content import ContentStore
from images.digest import Digest
from images.layers import Layers
from images.leases import Leases
from images.snapshots import Snapshots
from images.trash import Trash
from images.workers import Workers
from runtime.linux.failpoints import failpoint


class Collector:
    """Collects in two steps: decide and rename in one go of the event loop, delete in a thread."""

    def __init__(
        self,
        catalog: Catalog,
        content: ContentStore,
        layers: Layers,
        snapshots: Snapshots,
        leases: Leases,
        trash: Trash,
        workers: Workers,
    ) -> None:
        self._catalog = catalog
        self._content = content
        self._layers = layers
        self._snapshots = snapshots
        self._leases = leases
        self._trash = trash
        self._workers = workers

    async def run(self) -> None:
        """Remove all that is unused; returns when the space is free. Raises OSError."""
        used = self._used()
        # No await from here to the end of the renames: a pull may take a lease at any other moment.
        blobs = [digest for digest in list(self._content.sizes) if digest not in used and digest not in self._leases]
        layers = [chain_id for chain_id in self._layers.usage if chain_id not in used and chain_id not in self._leases]
        thrown = [self._content.throw(digest, self._trash) for digest in blobs]
        gone = [(chain_id, self._layers.throw(chain_id)) for chain_id in layers]
        failpoint("images.collect.thrown")
        await self._workers.run(partial(self._delete, thrown, gone))

    def _used(self) -> set[Digest]:
        used: set[Digest] = set()
        for image in self._catalog.all():
            used.update(image.blobs, image.layers)
        for layers in self._snapshots.layers.values():
            used.update(layers)
        return used

    def _delete(self, thrown: list[Path | None], gone: list[tuple[Digest, Path | None]]) -> None:
        for path in thrown:
            self._trash.delete(path)
        for chain_id, path in gone:
            self._layers.discard(chain_id, path)
