"""Leases: content that is being put together for an image, and that nothing refers to yet.

Garbage collection decides and renames in one step of the event loop; a pull takes its lease before it looks whether
something is here. So there is no moment in which something is found and then taken away.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from images.digest import Digest


class Lease:
    """What one piece of work needs; add() before looking whether it is there."""

    def __init__(self, held: Counter[Digest]) -> None:
        self._held = held
        self.digests: list[Digest] = []

    def add(self, *digests: Digest) -> None:
        """Keep these, blobs or layers, until the lease ends."""
        self.digests += digests
        self._held.update(digests)


class Leases:
    """All leases of one store."""

    def __init__(self) -> None:
        self._held: Counter[Digest] = Counter()

    @contextmanager
    def lease(self) -> Iterator[Lease]:
        """A lease for as long as the block lasts."""
        lease = Lease(self._held)
        try:
            yield lease
        finally:
            self._held.subtract(lease.digests)
            self._held += Counter()  # drop those that nobody holds any more

    def __contains__(self, digest: Digest) -> bool:
        return digest in self._held
