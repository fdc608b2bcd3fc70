"""The content store: blobs by digest, each verified before it has its name.

    content/
      blobs/sha256/<hex>     complete and verified: nothing else ever gets a name here
      ingest/sha256-<hex>    arriving, or left by a broken download and resumed by the next one

A file moves from ingest to blobs by one rename, after its bytes have reached the disk. Each ingest file is in the
ledger from before it is made until it is renamed or removed.
"""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

from images.blobs import Growth
from images.digest import HEX_LENGTH, Digest
from images.documents import Descriptor
from images.errors import DigestMismatch, ImageNotFound, InvalidDigest
from images.trash import Trash
from runtime.linux.failpoints import failpoint
from runtime.linux.files import boot_id, read_limited
from runtime.linux.ledger import Effect, Ledger

log = logging.getLogger("images")

KIND = "ingest"
READ = 4 << 20
#: A broken download is worth resuming for a day.
KEEP_SECONDS = 24 * 3600.0


class ContentStore:
    """Blobs below one directory; every method blocks on the disk at most, and may run in any thread."""

    def __init__(self, root: Path, ledger: Ledger) -> None:
        self._blobs = root / "blobs"
        self._ingest = root / "ingest"
        self._ledger = ledger
        #: Bytes of each blob. Threads add to it: take a list of it before looking at all.
        self.sizes: dict[Digest, int] = {}
        for directory in (self._ingest, *(self._blobs / algorithm for algorithm in HEX_LENGTH)):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def path(self, digest: Digest) -> Path:
        """Where the blob is, or would be."""
        return self._blobs / digest.algorithm / digest.hex

    def has(self, descriptor: Descriptor) -> bool:
        """Whether the blob is here with the size that the descriptor says; answered from memory."""
        return self.sizes.get(descriptor.digest) == descriptor.size

    def read(self, digest: Digest, limit: int) -> bytes:
        """A small blob whole; raises ImageNotFound, and OSError (EFBIG) beyond `limit` bytes."""
        try:
            return read_limited(self.path(digest), limit)
        except FileNotFoundError:
            raise ImageNotFound(f"the content {digest} is not here: pull the image again") from None

    def growth(self, descriptor: Descriptor) -> Growth:
        """A blob that is here, for readers."""
        return Growth.complete(self.path(descriptor.digest), descriptor.size)

    def ingest(self, descriptor: Descriptor, growth: Growth) -> Ingest:
        """Begin, or resume, the arrival of a blob, which readers follow through `growth`."""
        self._ledger.record(Effect(KIND, self._name(descriptor.digest)))
        failpoint("images.ingest.after_record")
        return Ingest(self._ingest / self._name(descriptor.digest), self, descriptor, growth)

    def adopted(self, descriptor: Descriptor) -> None:
        """A verified ingest file has got its name among the blobs."""
        failpoint("images.ingest.after_rename")
        self.sizes[descriptor.digest] = descriptor.size
        self._ledger.strike((KIND, self._name(descriptor.digest)))

    def discard(self, digest: Digest) -> None:
        """Remove an ingest file."""
        (self._ingest / self._name(digest)).unlink(missing_ok=True)
        self._ledger.strike((KIND, self._name(digest)))

    def throw(self, digest: Digest, trash: Trash) -> Path | None:
        """Take a blob away, at once; where it is now."""
        self.sizes.pop(digest, None)
        return trash.throw(self.path(digest))

    def recover(self) -> None:
        """At the start: look which blobs are here, and drop broken downloads that nobody resumes any more. Blocks."""
        self.expire()
        for algorithm in HEX_LENGTH:
            with os.scandir(self._blobs / algorithm) as entries:
                for entry in entries:
                    try:
                        self.sizes[Digest.parse(f"{algorithm}:{entry.name}")] = entry.stat().st_size
                    except InvalidDigest as error:
                        log.warning("%s is no blob and was not put there by the store: %s", entry.path, error)

    def expire(self) -> None:
        """Remove ingest files that are too old, or not in the ledger, and entries without a file. Blocks.

        Those of an earlier boot go too: their last bytes may never have reached the disk. Only for a moment in which
        nothing arrives.
        """
        entries = self._ledger.entries(KIND)
        known = {effect.key for effect in entries if effect.boot_id == boot_id()}
        oldest = time.time() - KEEP_SECONDS
        for file in list(self._ingest.iterdir()):
            if file.name not in known or file.stat().st_mtime < oldest:
                file.unlink()
        gone = {effect.key for effect in entries} - {file.name for file in self._ingest.iterdir()}
        self._ledger.strike(*((KIND, key) for key in gone))

    @staticmethod
    def _name(digest: Digest) -> str:
        return f"{digest.algorithm}-{digest.hex}"


class Ingest:
    """One arriving blob: write() from `offset` on, then commit(). Without that it stays for the next attempt.

    One thread at a time uses it.
    """

    def __init__(self, path: Path, store: ContentStore, descriptor: Descriptor, growth: Growth) -> None:
        self._store = store
        self._descriptor = descriptor
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        self._hasher = descriptor.digest.hasher()
        self._growth = growth
        self.offset = 0
        growth.begin(path)

    def __enter__(self) -> Ingest:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def resume(self) -> None:
        """Take what an earlier attempt left as the beginning; it is hashed anew, and dropped if it cannot be one."""
        at = 0
        while data := os.pread(self._fd, READ, at):
            self._hasher.update(data)
            at += len(data)
        size, digest = self._descriptor.size, self._descriptor.digest
        if at > size or (at == size and not digest.matches(self._hasher)):
            self.restart()
        else:
            self.offset = at
            self._growth.advance(at)  # not before: what readers have seen cannot be taken back

    def restart(self) -> None:
        """Begin at the first byte."""
        os.ftruncate(self._fd, 0)
        self._hasher = self._descriptor.digest.hasher()
        self.offset = 0

    def write(self, data: bytes) -> None:
        """Append; raises DigestMismatch as soon as there is more than promised, and OSError."""
        if self.offset + len(data) > self._descriptor.size:
            raise self._mismatch(f"more than the {self._descriptor.size} bytes promised")
        view, at = memoryview(data), self.offset
        while view:
            written = os.pwrite(self._fd, view, at)
            view, at = view[written:], at + written
        failpoint("images.ingest.after_write")
        self._hasher.update(data)
        self.offset += len(data)
        self._growth.advance(self.offset)

    def commit(self) -> None:
        """Verify, make durable, and give the blob its name; raises DigestMismatch: discard() it then."""
        if self.offset != self._descriptor.size:
            raise self._mismatch(f"{self.offset} bytes instead of {self._descriptor.size}")
        if not self._descriptor.digest.matches(self._hasher):
            raise self._mismatch(
                f"content with the digest {self._descriptor.digest.algorithm}:{self._hasher.hexdigest()}"
            )
        os.fdatasync(self._fd)
        failpoint("images.ingest.before_rename")
        self._growth.finish(self._store.path(self._descriptor.digest))
        self._store.adopted(self._descriptor)

    def _mismatch(self, got: str) -> DigestMismatch:
        return DigestMismatch(f"{self._descriptor.digest}: the registry sent {got}")
