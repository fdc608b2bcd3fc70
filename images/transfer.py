"""One pull or import as those below see it: where it takes from, who counts, and how much it does at once.

The slots belong to the pull and not to the store: one whose registry hardly answers keeps its own slots busy, and
nobody else's. So do failures: a blob or a layer that many wait for is fetched by one of them, from his registry and
as his manifest says.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from images.errors import DiskFull, ImageError
from images.limits import Limits
from images.source import Source


class Transfer:
    """`count` is told of the bytes of blobs as they come."""

    def __init__(self, source: Source, count: Callable[[int], None], limits: Limits) -> None:
        self.source = source
        self.count = count
        self.downloads = asyncio.Semaphore(limits.downloads)
        self.unpacks = asyncio.Semaphore(limits.unpacks)

    @contextmanager
    def answerable(self) -> Iterator[None]:
        """An ImageError from here is the failure of this transfer, unless it is another one's already."""
        try:
            yield
        except ImageError as error:
            error.ended = error.ended or self
            raise

    def concerns(self, error: ImageError) -> bool:
        """Whether it would be no use to try again what another transfer has failed at."""
        return error.ended is self or isinstance(error, DiskFull)
