"""One layer on its way from a blob to a directory: extract() while the blob arrives, settle() once those below are.

Both block and run in a thread of their own each; in between, the object keeps one fd and the list of what is left.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from images.blobs import BlobReader
from images.digest import Digest
from images.errors import DigestMismatch, disk_full_explained
from images.inflate import ReadAhead, hashed, inflated, limited
from images.limits import Limits
from images.tar.reader import TarReader
from images.tar.stream import ByteStream
from images.unpack.extract import Extracted, Extractor
from images.unpack.merged import Merged
from images.unpack.settle import Settling
from images.unpack.tree import Tree


class LayerUnpack:
    """Fills an empty directory, and holds fds of it until close(). The directory is the caller's."""

    def __init__(self, directory: Path, diff_id: Digest, limits: Limits) -> None:
        self._tree = Tree(directory)
        self._diff_id = diff_id
        self._limits = limits
        self._extracted = Extracted()

    def close(self) -> None:
        """Close the directory."""
        self._tree.close()

    def extract(self, blob: BlobReader) -> None:
        """Unpack the blob to its end, and compare what it unpacked to with the diff id; raises ImageError, OSError."""
        hasher = self._diff_id.hasher()
        with ReadAhead(hashed(limited(inflated(blob), blob, self._limits), hasher)) as chunks:
            stream = ByteStream(chunks)
            self._extracted = Extractor(self._tree, TarReader(stream, self._limits), self._limits).run()
            stream.drain()
        self._tree.forget()
        if not self._diff_id.matches(hasher):
            found = f"{self._diff_id.algorithm}:{hasher.hexdigest()}"
            raise DigestMismatch(f"a layer unpacks to {found}, but the image's config names {self._diff_id}")

    def settle(self, below: Sequence[Path]) -> Extracted:
        """Finish the directory for its place above `below`, the top one first; raises ImageError, OSError."""
        with disk_full_explained("unpacking a layer"):
            Settling(self._tree, self._extracted, Merged(below), self._limits).run()
        self._tree.forget()
        return self._extracted
