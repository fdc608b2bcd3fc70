"""Taking an image in: from a source's manifest to blobs in the content store and finished layers.

    manifest, or index -> manifest of this platform -> config -> all layers at once: download | unpack

Everything is verified against the digest that named it, and nothing refers to it before all of it is here.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from functools import partial

from images.arrivals import Arrivals
from images.content import ContentStore
from images.digest import Digest, chain_ids
from images.documents import Descriptor, ImageConfig, Index, Manifest, parse_config, parse_manifest
from images.errors import DigestMismatch, DiskFull, MalformedImage, UnsupportedImage
from images.image import Image
from images.layers import Layers, Wanted
from images.leases import Lease
from images.limits import Limits
from images.memory import give_back
from images.platform import Platform
from images.progress import Meter
from images.source import Fetched, Memory, Source
from images.transfer import Transfer
from images.workers import Workers
from runtime.linux.failpoints import failpoint

INDEX_DEPTH = 3


class Intake:
    """Takes images of any source into one store."""

    def __init__(
        self, content: ContentStore, arrivals: Arrivals, layers: Layers, workers: Workers, limits: Limits
    ) -> None:
        self._content = content
        self._arrivals = arrivals
        self._layers = layers
        self._workers = workers
        self._limits = limits

    async def take(self, source: Source, platform: Platform, lease: Lease, meter: Meter) -> tuple[Image, Digest]:
        """An image without names, all of it here and kept by the lease, and the digest that its source has it under.

        Raises ImageError, OSError.
        """
        top = await source.manifest()
        documents, manifest = await self._choose(source, top, platform)
        failpoint("images.pull.after_manifest")
        lease.add(*documents, manifest.config.digest)
        body = await self._config(source, manifest.config)
        config = parse_config(body, self._limits, f"the config of {source.name}")
        _check(config, manifest, platform, source.name)
        layers = [layer.digest for layer in manifest.layers]
        chain = chain_ids(list(config.diff_ids))
        lease.add(*layers, *chain)
        await self._store(source.name, {**documents, manifest.config.digest: body})
        failpoint("images.pull.after_config")
        await self._take_layers(source, manifest, config, chain, meter)
        failpoint("images.pull.after_layers")
        size = sum(map(len, documents.values())) + manifest.config.size + sum(layer.size for layer in manifest.layers)
        image = Image(
            id=manifest.config.digest,
            repo_tags=(),
            repo_digests=(),
            size=size,
            config=config.config,
            layers=tuple(chain),
            blobs=tuple(dict.fromkeys([*documents, manifest.config.digest, *layers])),
            created=config.created,
            platform=str(config.platform),
        )
        return image, top.digest

    async def _choose(
        self, source: Source, fetched: Fetched, platform: Platform
    ) -> tuple[dict[Digest, bytes], Manifest]:
        """The manifest for a platform, and the documents that lead to it."""
        documents: dict[Digest, bytes] = {}
        for _ in range(INDEX_DEPTH):
            documents[fetched.digest] = fetched.body
            parsed = parse_manifest(fetched.body, fetched.media_type, self._limits, source.name)
            if isinstance(parsed, Manifest):
                return documents, parsed
            fetched = await source.manifest(_chosen(parsed, platform, source.name).digest)
        raise MalformedImage(f"{source.name}: an index of an index of an index")

    async def _config(self, source: Source, descriptor: Descriptor) -> bytes:
        """A config, small enough for memory: parse_manifest() has seen to that."""
        if self._content.has(descriptor):
            return await self._workers.run(partial(self._content.read, descriptor.digest, self._limits.config))
        body = bytearray()
        async with aclosing(source.parts(descriptor, 0)) as parts:
            async for part in parts:
                body += part
                if len(body) > descriptor.size:
                    break
        hasher = descriptor.digest.hasher()
        hasher.update(body)
        if len(body) != descriptor.size or not descriptor.digest.matches(hasher):
            raise DigestMismatch(
                f"{source.name}: the config {descriptor.digest} of {descriptor.size} bytes is not what was sent "
                f"({len(body)} bytes or more, {descriptor.digest.algorithm}:{hasher.hexdigest()})"
            )
        return bytes(body)

    async def _store(self, name: str, documents: dict[Digest, bytes]) -> None:
        """Like blobs that arrive, since another pull may be storing the same ones."""
        transfer = Transfer(Memory(name, documents), lambda _: None, self._limits)
        for digest, body in documents.items():
            async with self._arrivals.arriving(Descriptor("", digest, len(body)), transfer) as arrival:
                await arrival.complete()

    async def _take_layers(
        self, source: Source, manifest: Manifest, config: ImageConfig, chain: list[Digest], meter: Meter
    ) -> None:
        """All at once; the first failure ends the others."""
        wanted: list[Wanted] = []
        for blob, diff_id, chain_id in zip(manifest.layers, config.diff_ids, chain, strict=True):
            wanted.append(Wanted(chain_id, diff_id, blob, wanted[-1] if wanted else None))
            if chain_id not in self._layers.usage and not self._content.has(blob):
                meter.expect(blob.size)
        transfer = Transfer(source, meter.count, self._limits)
        tasks = [asyncio.create_task(self._layers.obtain(layer, transfer)) for layer in wanted]
        try:
            await asyncio.gather(*tasks)
        except DiskFull:
            await _end(tasks)
            self._arrivals.forget(layer.digest for layer in manifest.layers)
            raise
        finally:
            await _end(tasks)
            give_back()


async def _end(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _chosen(index: Index, platform: Platform, what: str) -> Descriptor:
    chosen = index.choose(platform)
    if chosen is None:
        offered = ", ".join(sorted({str(offered) for _, offered in index.entries})) or "no platform at all"
        raise UnsupportedImage(f"{what}: there is no image for {platform} in it, only for {offered[:400]}")
    return chosen


def _check(config: ImageConfig, manifest: Manifest, platform: Platform, what: str) -> None:
    if config.platform.os and platform.rank(config.platform) is None:
        raise UnsupportedImage(f"{what}: an image for {config.platform}, but this is {platform}")
    if len(config.diff_ids) != len(manifest.layers):
        raise MalformedImage(f"{what}: {len(manifest.layers)} layers, but the config counts {len(config.diff_ids)}")
