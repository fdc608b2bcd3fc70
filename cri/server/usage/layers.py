"""Sizes of the containers' writable layers: measured by walking them, so remembered and refreshed in the background.

A list of statistics must not walk a hundred directory trees each time it is asked for (the kubelet asks every 10 s).
The first answer about a container waits a moment for its measurement, once for all that it tells of; later ones have
the last one and start the next. One huge layer is left out of its answers until it is measured, and delays no others.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cri.proto import api_pb2 as api
from images import ImageError, ImageStore

log = logging.getLogger("crid")

#: Seconds after which a measurement is renewed.
MAX_AGE = 30.0
CONCURRENT = 2
#: Seconds that an answer waits for those that were never measured: after a start these may be many.
PATIENCE = 2.0


@dataclass(slots=True)
class _Measured:
    usage: api.FilesystemUsage
    at: float


class LayerUsage:
    """FilesystemUsage of snapshots by key."""

    def __init__(self, images: ImageStore) -> None:
        self._images = images
        self._known: dict[str, _Measured] = {}
        self._under_way: dict[str, asyncio.Task[None]] = {}
        self._slots = asyncio.Semaphore(CONCURRENT)

    async def measured(self, keys: Iterable[str]) -> None:
        """Wait until all have been measured once, PATIENCE at most for all together; what takes longer goes on."""
        if missing := [self._measure(key) for key in keys if key not in self._known]:
            await asyncio.wait(missing, timeout=PATIENCE)

    def of(self, key: str, ended: int = 0) -> api.FilesystemUsage | None:
        """The usage, at most a little older than MAX_AGE; None when it is not known after measured().

        `ended` is when its container has ended, in ns since the epoch: from then on nothing changes any more.
        """
        known = self._known.get(key)
        if known is None:
            return None
        if time.monotonic() - known.at > MAX_AGE and not _is_final(known, ended):
            self._measure(key)
        return known.usage

    async def total(self, snapshots: Mapping[str, int]) -> tuple[int, int]:
        """Bytes and inodes of many, without those that PATIENCE is too short for; the values are of()'s `ended`."""
        await self.measured(snapshots)
        found = [usage for key, ended in snapshots.items() if (usage := self.of(key, ended)) is not None]
        return sum(usage.used_bytes.value for usage in found), sum(usage.inodes_used.value for usage in found)

    def _measure(self, key: str) -> asyncio.Task[None]:
        task = self._under_way.get(key)
        if task is None:
            task = self._under_way[key] = asyncio.create_task(self._walk(key))
            task.add_done_callback(lambda _: self._under_way.pop(key, None))
        return task

    async def _walk(self, key: str) -> None:
        async with self._slots:
            try:
                usage = await self._images.containers.usage(key)
            except (ImageError, OSError) as error:
                log.warning("the size of snapshot %s cannot be measured: %s", key, error)
                return
        if key in self._under_way:  # else it was forgotten meanwhile
            self._known[key] = _Measured(filesystem_usage(usage.path, usage.bytes, usage.inodes), time.monotonic())

    def forget(self, key: str) -> None:
        self._known.pop(key, None)
        self._under_way.pop(key, None)


def _is_final(known: _Measured, ended: int) -> bool:
    # The walk may have begun before the end: one that came much later has not.
    return 0 < ended < known.usage.timestamp - int(MAX_AGE * 1e9)


def filesystem_usage(path: str, used: int, inodes: int) -> api.FilesystemUsage:
    """FilesystemUsage as of now."""
    return api.FilesystemUsage(
        timestamp=time.time_ns(),
        fs_id=api.FilesystemIdentifier(mountpoint=path),
        used_bytes=api.UInt64Value(value=used),
        inodes_used=api.UInt64Value(value=inodes),
    )
