"""The image store: everything that the rest of the node asks of images."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from images.archive.opening import opened
from images.arrivals import Arrivals
from images.build import LayerFile, build_image, layer_tar
from images.catalog import Catalog
from images.collect import Collector
from images.containers import ContainerLayers, Usage
from images.content import ContentStore
from images.errors import ImageError
from images.flights import Flights
from images.image import Image
from images.intake import Intake
from images.layers import Layers
from images.leases import Leases
from images.limits import Limits
from images.memory import share_arenas
from images.platform import Platform
from images.progress import Meter, Progress
from images.reference import Reference
from images.registry.credentials import Auth
from images.snapshots import Snapshots
from images.source import Source
from images.trash import Trash
from images.workers import Workers
from runtime.linux.failpoints import failpoint
from runtime.linux.ledger import Ledger
from runtime.linux.records import Records

if TYPE_CHECKING:
    from images.registry.http import Http

log = logging.getLogger("images")

DIRECTORIES = (Path("/etc/nodeagent/certs.d"), Path("/etc/containerd/certs.d"))
THREADS = 16
#: Where tests kill the daemon (runtime.linux.failpoints), in the order in which a pull and a removal come by.
FAILPOINTS = (
    "images.pull.after_manifest",
    "images.ingest.after_record",
    "images.ingest.after_write",
    "images.ingest.before_rename",
    "images.ingest.after_rename",
    "images.pull.after_config",
    "images.layer.after_record",
    "images.layer.before_sync",
    "images.layer.before_rename",
    "images.layer.after_rename",
    "images.pull.after_layers",
    "images.image.added",
    "images.snapshot.after_record",
    "images.snapshot.made",
    "images.trash.thrown",
    "images.image.removed",
    "images.collect.thrown",
)


class ImageStore:
    """Images below `root`: content/, snapshots/ and trash/. For one event loop; recover() comes first.

    The writable layers of containers, on top of them, are its `containers`.

    Whatever a call has begun is undone when it fails or is cancelled; what a crash leaves, recover() takes away.
    Errors are ImageError, ValueError for a key that is no name, or OSError where the disk itself fails.
    """

    def __init__(
        self,
        root: Path,
        ledger: Ledger,
        records: Records,
        *,
        registries: Sequence[Path] = DIRECTORIES,
        pinned: Sequence[str] = (),
        limits: Limits | None = None,
    ) -> None:
        """`registries`: directories of hosts.toml files; `pinned`: names of images that the kubelet may not collect."""
        share_arenas()
        self._root = root
        self._registries = tuple(registries)
        self._limits = limits or Limits()
        self._workers = workers = Workers(THREADS)
        self._trash = trash = Trash(root / "trash")
        self._content = ContentStore(root / "content", ledger)
        self._arrivals = Arrivals(self._content, workers)
        #: Where layers and what containers change of them lie.
        self.unpacked = root / "snapshots"
        self._layers = Layers(self.unpacked, ledger, trash, self._arrivals, workers, self._limits)
        self._snapshots = Snapshots(self.unpacked, ledger, trash, workers)
        self._catalog = Catalog(records, pinned)
        self.containers = ContainerLayers(root, self._catalog, self._layers, self._snapshots, workers, self._limits)
        self._leases = Leases()
        self._intake = Intake(self._content, self._arrivals, self._layers, workers, self._limits)
        self._collector = Collector(
            self._catalog, self._content, self._layers, self._snapshots, self._leases, trash, workers
        )
        self._pulls: Flights[Image] = Flights()
        self._http: Http | None = None

    async def recover(self) -> None:
        """Take over what is on disk: finished work stays, anything half-done goes."""
        for part in (self._trash.empty, self._content.recover, self._layers.recover, self._snapshots.recover):
            await self._workers.run(part)
        self._catalog.load()
        for image in self._catalog.all():
            if any(chain_id not in self._layers.usage for chain_id in image.layers):
                log.warning(
                    "image %s %s lost a layer, to a power cut perhaps: pull it again", image.id, image.repo_tags
                )
                self._catalog.remove(image.id)
        await self._collector.run()

    async def close(self) -> None:
        """Give up what is under way; nothing may be called any more."""
        await self._pulls.close()
        await self._layers.close()
        await self._arrivals.close()
        if self._http is not None:
            await self._http.close()
        self._workers.close()

    def list(self) -> list[Image]:
        """Every image."""
        return self._catalog.all()

    def get(self, name: str) -> Image | None:
        """By reference, by id, or by the first digits of an id (at least five)."""
        return self._catalog.find(name)

    async def pull(
        self,
        name: str,
        *,
        auth: Auth | None = None,
        platform: Platform | None = None,
        progress: Callable[[Progress], None] | None = None,
    ) -> Image:
        """Pull an image from its registry, or join the pull of it that is under way."""
        reference = Reference.parse(name)
        wanted = platform or Platform.host()
        key = (str(reference), wanted, auth)
        return await self._pulls.join(key, lambda: self._pull(reference, wanted, auth, progress))

    async def _pull(
        self, reference: Reference, platform: Platform, auth: Auth | None, progress: Callable[[Progress], None] | None
    ) -> Image:
        # The HTTP client takes a tenth of a second to import, and most starts of a daemon see no pull.
        client = await self._workers.run(partial(import_module, "images.registry.source"))
        if self._http is None:
            self._http = client.Http(self._limits)
        make = partial(client.RegistrySource, self._http, reference, self._registries, auth, self._limits)
        source = await self._workers.run(make)
        meter = Meter(str(reference), progress)
        with self._leases.lease() as lease:
            image, digest = await self._intake.take(source, platform, lease, meter)
            added = self._added(image.named(reference, digest))
        log.info("pulled %s: %s", reference, meter)
        return added

    def _added(self, image: Image) -> Image:
        added = self._catalog.add(image)
        failpoint("images.image.added")
        return added

    async def import_archive(self, path: Path, name: str | None = None) -> Sequence[Image]:
        """Take in the images of an OCI layout (directory or tar) or of a `docker save` archive.

        They keep the names that the archive gives them, unless `name` is given, which fits an archive of one image.
        """
        with ExitStack() as stack:
            found = await self._workers.run(lambda: stack.enter_context(opened(path, self._limits)))
            if name is not None and len(found) != 1:
                raise ImageError(f"{path} holds {len(found)} images, so they cannot all be called {name}")
            images = []
            for image in found:
                names = [name] if name is not None else image.names
                if not names:
                    raise ImageError(f"{path} does not say what its image is called: give it a name")
                images.append(await self._take(image.source, [Reference.parse(text) for text in names]))
            return images

    async def build_from_files(self, name: str, files: Sequence[LayerFile], config: Mapping[str, Any]) -> Image:
        """Make an image of one layer (images.build) and take it in; the same input gives the same image."""
        tar = await self._workers.run(partial(layer_tar, files))
        source = build_image(name, [tar], config, Platform.host())
        return await self._take(source, [Reference.parse(name)])

    async def _take(self, source: Source, references: Sequence[Reference]) -> Image:
        with self._leases.lease() as lease:
            meter = Meter(source.name, None)
            image, _ = await self._intake.take(source, Platform.host(), lease, meter)
            for reference in references:
                image = image.named(reference)
            return self._added(image)

    async def remove(self, name: str) -> None:
        """Remove an image under all its names (CRI, RemoveImage) and what only it needs; raises ImageNotFound.

        Containers of it go on: their layers stay until the last of them is released and garbage is collected.
        """
        self._catalog.remove(self._catalog.known(name).id)
        failpoint("images.image.removed")
        await self._collector.run()

    async def gc(self) -> None:
        """Remove what nothing needs any more: left by failed pulls, or by images removed under a container."""
        await self._collector.run()

    def usage(self) -> Usage:
        """What images take: their blobs and unpacked layers, without the containers' own layers."""
        sizes, layers = list(self._content.sizes.values()), self._layers.usage.values()
        total = sum(sizes) + sum(size for size, _ in layers)
        return Usage(str(self._root), total, len(sizes) + sum(inodes for _, inodes in layers))
