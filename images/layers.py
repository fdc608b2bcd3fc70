"""Unpacked layers: directories for overlayfs, each made once and shared by every image that has it.

    snapshots/
      unpacking/<id>/   being filled: removed at the next start
      layers/<id>/      finished, and on disk before it has this name

A layer's identity is its chain id, for what a layer looks like depends on those below it. The directory's name is
short, as the names of all layers have to fit into one page of mount options, and made by hashing: the chain id of a
first layer is its diff id, any text that the image's author likes, so a part of it would let one image take the name
of another one's layer, which goes when the false one fails to be what it promised.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import struct
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from images.arrivals import Arrivals
from images.blobs import BlobReader
from images.digest import Digest
from images.documents import Descriptor
from images.errors import ImageError, MalformedImage, disk_full_explained
from images.flights import Flights
from images.limits import Limits
from images.transfer import Transfer
from images.trash import Trash
from images.unpack.layer import LayerUnpack
from images.workers import Workers, in_own_thread
from runtime.linux.failpoints import failpoint
from runtime.linux.ledger import Effect, Ledger
from runtime.linux.syscalls import syncfs

KIND = "snapshot"
PREFIX = "layers/"
#: Hex digits of a directory's name: 128 bits.
NAME_LENGTH = 32
FS_IOC_GETFLAGS = 0x80086601
FS_IOC_SETFLAGS = 0x40086602
FS_TOPDIR_FL = 0x00020000


@dataclass(frozen=True, slots=True, eq=False)
class Wanted:
    """One layer of an image that is being taken in, with the one that it stands on."""

    chain_id: Digest
    diff_id: Digest
    blob: Descriptor
    below: Wanted | None

    def under(self) -> Iterator[Digest]:
        """The chain ids of all layers below, the top one first."""
        layer = self.below
        while layer is not None:
            yield layer.chain_id
            layer = layer.below


class Layers:
    """Every finished layer below one directory, with what it costs. For one event loop."""

    def __init__(
        self, root: Path, ledger: Ledger, trash: Trash, arrivals: Arrivals, workers: Workers, limits: Limits
    ) -> None:
        self._finished = root / "layers"
        self._unpacking = root / "unpacking"
        self._trash = trash
        self._ledger = ledger
        self._arrivals = arrivals
        self._workers = workers
        self._limits = limits
        self._flights: Flights[None] = Flights()
        #: Bytes and inodes of each finished layer.
        self.usage: dict[Digest, tuple[int, int]] = {}

    def directory(self, chain_id: Digest) -> Path:
        """Where a finished layer is."""
        return self._finished / name_of(chain_id)

    async def obtain(self, wanted: Wanted, transfer: Transfer) -> None:
        """Return once the layer, and with it all below, is finished; raises ImageError, OSError.

        What another transfer fails at is begun anew.
        """
        while wanted.chain_id not in self.usage:
            try:
                await self._flights.join(wanted.chain_id, partial(self._make, wanted, transfer))
            except ImageError as error:
                if transfer.concerns(error):
                    raise

    async def _make(self, wanted: Wanted, transfer: Transfer) -> None:
        directory = self._unpacking / name_of(wanted.chain_id)
        effect = Effect(KIND, PREFIX + directory.name, detail={"chain_id": wanted.chain_id})
        async with self._being_made(wanted.below, transfer) as below:
            try:
                with transfer.answerable(), disk_full_explained(f"making the layer {wanted.chain_id}"):
                    await self._workers.run(partial(self._begin, directory, effect))
                    cost = await self._fill(directory, wanted, below, transfer)
            except BaseException:
                await self._workers.run(partial(self._undo, directory, effect))
                raise
        self.usage[wanted.chain_id] = cost

    @contextlib.asynccontextmanager
    async def _being_made(self, wanted: Wanted | None, transfer: Transfer) -> AsyncIterator[asyncio.Task[None] | None]:
        """The making of the layer below, which goes on beside that of this one; None when it is finished."""
        if wanted is None or wanted.chain_id in self.usage:
            yield None
            return
        task = asyncio.create_task(self.obtain(wanted, transfer))
        try:
            yield task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _fill(
        self, directory: Path, wanted: Wanted, below: asyncio.Task[None] | None, transfer: Transfer
    ) -> tuple[int, int]:
        with contextlib.closing(LayerUnpack(directory, wanted.diff_id, self._limits)) as unpack:
            await self._extract(unpack, wanted.blob, transfer)
            if below is not None:
                await below
            return await self._workers.run(partial(self._finish, unpack, directory, wanted))

    def _begin(self, directory: Path, effect: Effect) -> None:
        self._ledger.record(effect)
        failpoint("images.layer.after_record")
        directory.mkdir(mode=0o700)

    def _undo(self, directory: Path, effect: Effect) -> None:
        for place in (directory, self._finished / directory.name):
            self._trash.delete(self._trash.throw(place))
        self._ledger.strike(effect)

    async def _extract(self, unpack: LayerUnpack, blob: Descriptor, transfer: Transfer) -> None:
        async with self._arrivals.arriving(blob, transfer) as arrival, transfer.unpacks:
            with contextlib.closing(BlobReader(arrival.growth)) as reader:
                try:
                    await in_own_thread(partial(unpack.extract, reader), partial(reader.stop, ImageError("given up")))
                except MalformedImage:
                    await arrival.complete()  # what is damaged is most often not what it should be, either
                    raise
            await arrival.complete()

    def _finish(self, unpack: LayerUnpack, directory: Path, wanted: Wanted) -> tuple[int, int]:
        extracted = unpack.settle([self.directory(chain_id) for chain_id in wanted.under()])
        failpoint("images.layer.before_sync")
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            syncfs(fd)
        finally:
            os.close(fd)
        detail = {"chain_id": wanted.chain_id, "bytes": extracted.bytes, "inodes": extracted.inodes}
        self._ledger.record(Effect(KIND, PREFIX + directory.name, detail=detail))
        failpoint("images.layer.before_rename")
        os.rename(directory, self.directory(wanted.chain_id))
        failpoint("images.layer.after_rename")
        return extracted.bytes, extracted.inodes

    def throw(self, chain_id: Digest) -> Path | None:
        """Make a layer disappear, at once; the rest is discard()'s."""
        self.usage.pop(chain_id, None)
        return self._trash.throw(self.directory(chain_id))

    def discard(self, chain_id: Digest, thrown: Path | None) -> None:
        """Delete what throw() has returned, unless the layer has been made anew: its entry is that one's then."""
        self._trash.delete(thrown)
        if not self.directory(chain_id).exists() and not self._flights.under_way(chain_id):
            self._ledger.strike((KIND, PREFIX + name_of(chain_id)))

    def recover(self) -> None:
        """At the start: finished layers that are in the ledger are taken over, everything else goes. Blocks."""
        for directory in (self._finished, self._unpacking):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        _spread_subdirectories(self._unpacking)
        for leftover in list(self._unpacking.iterdir()):
            self._trash.delete(self._trash.throw(leftover))
        known = {e.key: e for e in self._ledger.entries(KIND) if e.key.startswith(PREFIX)}
        for directory in list(self._finished.iterdir()):
            effect = known.pop(PREFIX + directory.name, None)
            if effect is None or "bytes" not in effect.detail:
                self._trash.delete(self._trash.throw(directory))
                continue
            chain_id = Digest.parse(effect.detail["chain_id"])
            if directory.name != name_of(chain_id):
                known.pop(PREFIX + name_of(chain_id), None)
                self._rename(directory, chain_id, effect)
            self.usage[chain_id] = (int(effect.detail["bytes"]), int(effect.detail["inodes"]))
        self._ledger.strike(*known.values())

    def _rename(self, directory: Path, chain_id: Digest, effect: Effect) -> None:
        """A name that an earlier version gave; mounted overlays go on, since they hold the directory itself."""
        self._ledger.record(Effect(KIND, PREFIX + name_of(chain_id), detail=effect.detail))
        os.rename(directory, self.directory(chain_id))
        self._ledger.strike(effect)

    async def close(self) -> None:
        """Give up what is being unpacked."""
        await self._flights.close()


def name_of(chain_id: Digest) -> str:
    """The name of a layer's directory, which nobody can choose."""
    return Digest.of(chain_id.encode()).hex[:NAME_LENGTH]


def _spread_subdirectories(path: Path) -> None:
    """Tell ext4 that the directories in here have nothing to do with each other (chattr(1), attribute T).

    Each layer then gets block groups of its own. Without it a new layer lands in the group of one that was just
    removed, where ext4 looks at every recently freed inode before it takes another: measured, 25,000 files took
    1.1 s to create with the attribute and up to 7 s without it.
    """
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        flags = struct.unpack("l", fcntl.ioctl(fd, FS_IOC_GETFLAGS, bytes(struct.calcsize("l"))))[0]
        fcntl.ioctl(fd, FS_IOC_SETFLAGS, struct.pack("l", flags | FS_TOPDIR_FL))
    except OSError:
        return  # other filesystems have no such attribute, and no such problem
    finally:
        os.close(fd)
