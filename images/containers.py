"""The writable layers of containers, as the rest of the node asks for them: each on top of the layers of an image."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

from images.catalog import Catalog
from images.changes import lay_down, write_changes
from images.errors import disk_full_explained
from images.layers import Layers
from images.limits import Limits
from images.snapshots import Snapshots
from images.workers import Workers
from runtime.linux.overlay import OverlayRootfs


@dataclass(frozen=True, slots=True)
class Usage:
    """Space taken on the filesystem that `path` is on: bytes on disk, and inodes."""

    path: str
    bytes: int
    inodes: int


class ContainerLayers:
    """By a key that the caller chooses, one for each container; for one event loop, as the ImageStore that has it."""

    def __init__(
        self, root: Path, catalog: Catalog, layers: Layers, snapshots: Snapshots, workers: Workers, limits: Limits
    ) -> None:
        self._root = root
        self._catalog = catalog
        self._layers = layers
        self._snapshots = snapshots
        self._workers = workers
        self._limits = limits

    async def prepare(self, key: str, image_id: str, *, holder: str = "") -> OverlayRootfs:
        """A writable layer for a container, on top of an image; the same key gives the same one again.

        Raises ImageNotFound, and ValueError for a key that is no plain file name.
        """
        image = self._catalog.known(image_id)
        lower = [self._layers.directory(chain_id) for chain_id in reversed(image.layers)]
        lower = lower or [self._snapshots.empty]  # an image without layers; overlayfs wants one
        upper, work = await self._snapshots.prepare(key, holder, image.layers, lower[0])
        return OverlayRootfs(tuple(map(str, lower)), upper, work)

    async def write_changes(self, key: str, out: Path, limit: int) -> None:
        """Write what a container has changed as a layer into a new file. The container must be paused.

        Raises TooLarge beyond `limit` bytes, FileNotFoundError for an unknown key, OSError.
        """
        upper = self._snapshots.directory(key) / "upper"

        def write() -> None:
            with out.open("xb") as file, disk_full_explained("writing what a container has changed"):
                write_changes(upper, file, limit)

        await self._workers.run(write)

    async def lay_down(self, key: str, layer: Path, limit: int) -> None:
        """Unpack such a layer, trusted as little as that of an image, into the fresh one of another container.

        Raises ImageError, FileNotFoundError, OSError.
        """
        upper = self._snapshots.directory(key) / "upper"
        below = [self._layers.directory(chain_id) for chain_id in reversed(self._snapshots.layers[key])]
        limits = replace(self._limits, unpacked=limit)

        def unpack() -> None:
            fd = os.open(layer, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                lay_down(fd, upper, below, limits)
            finally:
                os.close(fd)

        await self._workers.run(unpack)

    async def release(self, key: str) -> None:
        """Remove a container's layer; an unknown key is no error. The container must be gone."""
        await self._snapshots.release(key)

    def holders(self) -> dict[str, str]:
        """The keys of all of them, with the holder of each."""
        return dict(self._snapshots.holders)

    async def usage(self, key: str) -> Usage:
        """What a container has written to its layer; raises FileNotFoundError."""
        size, inodes = await self._snapshots.usage(key)
        return Usage(str(self._root), size, inodes)
