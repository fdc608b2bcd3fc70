"""One pull or import as those below see it: where it takes from, who counts, and how much it does at once.

The slots belong to the pull and not to the store: one whose registry hardly answers keeps its own slots busy, and
nobody else's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from images.limits import Limits
from images.source import Source


class Transfer:
    """`count` is told of the bytes of blobs as they come."""

    def __init__(self, source: Source, count: Callable[[int], None], limits: Limits) -> None:
        self.source = source
        self.count = count
        self.downloads = asyncio.Semaphore(limits.downloads)
        self.unpacks = asyncio.Semaphore(limits.unpacks)
