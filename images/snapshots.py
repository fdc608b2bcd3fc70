"""Snapshots: the writable layer of each container, above the shared layers of its image.

snapshots/containers/<key>/{upper,work}
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from images.digest import Digest
from images.errors import disk_full_explained
from images.trash import Trash
from images.workers import Workers
from runtime.linux.failpoints import failpoint
from runtime.linux.ledger import Effect, Ledger
from runtime.linux.treesize import measure

KIND = "snapshot"
PREFIX = "containers/"
_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")


class Snapshots:
    """Every container's writable layer below one directory. For one event loop."""

    def __init__(self, root: Path, ledger: Ledger, trash: Trash, workers: Workers) -> None:
        self._root = root / "containers"
        self.empty = root / "empty"
        self._trash = trash
        self._ledger = ledger
        self._workers = workers
        #: The chain ids that each snapshot stands on, the lowest first.
        self.layers: dict[str, tuple[Digest, ...]] = {}
        #: For whom each snapshot was made.
        self.holders: dict[str, str] = {}

    def directory(self, key: str) -> Path:
        """Where a snapshot is; raises ValueError for a key that is no plain name."""
        if not _KEY.fullmatch(key):
            raise ValueError(f"{key[:128]!r} cannot be the key of a snapshot: want letters, digits, _ . and -")
        return self._root / key

    async def prepare(self, key: str, holder: str, layers: Sequence[Digest], top: Path) -> tuple[str, str]:
        """Make the directories `upper`, like the root of the image's top layer, and `work`; returns their paths.

        A key that is there already is left as it is. Raises ImageError, OSError.
        """
        directory = self.directory(key)
        self.layers.setdefault(key, tuple(layers))
        self.holders.setdefault(key, holder)
        try:
            await self._workers.run(partial(self._make, directory, holder, self.layers[key], top))
        except BaseException:
            await self.release(key)
            raise
        return str(directory / "upper"), str(directory / "work")

    def _make(self, directory: Path, holder: str, layers: Sequence[Digest], top: Path) -> None:
        self._ledger.record(Effect(KIND, PREFIX + directory.name, holder, {"layers": list(layers)}))
        failpoint("images.snapshot.after_record")
        with disk_full_explained("making a container's layer"):
            directory.mkdir(mode=0o700, exist_ok=True)
            (directory / "work").mkdir(mode=0o700, exist_ok=True)
            _make_like(directory / "upper", top)
        failpoint("images.snapshot.made")

    async def release(self, key: str) -> None:
        """Remove a snapshot; one that is not there is no error."""
        await self._workers.run(partial(self._remove, self.directory(key)))
        self.layers.pop(key, None)
        self.holders.pop(key, None)

    def _remove(self, directory: Path) -> None:
        thrown = self._trash.throw(directory)
        self._trash.delete(thrown)
        self._ledger.strike((KIND, PREFIX + directory.name))

    async def usage(self, key: str) -> tuple[int, int]:
        """Bytes on disk and inodes of what the container has written; raises FileNotFoundError."""
        return await self._workers.run(partial(measure, self.directory(key) / "upper"))

    def recover(self) -> None:
        """At the start: snapshots that are in the ledger are taken over, the rest goes. Blocks."""
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.empty.mkdir(mode=0o755, exist_ok=True)
        known = {e.key.removeprefix(PREFIX): e for e in self._ledger.entries(KIND) if e.key.startswith(PREFIX)}
        for directory in list(self._root.iterdir()):
            effect = known.pop(directory.name, None)
            if effect is None:
                self._trash.delete(self._trash.throw(directory))
                continue
            self.layers[directory.name] = tuple(Digest.parse(text) for text in effect.detail["layers"])
            self.holders[directory.name] = effect.holder
        self._ledger.strike(*known.values())


def _make_like(upper: Path, top: Path) -> None:
    """The container's root directory is `upper` itself, so it has to look like the image's."""
    status = os.stat(top)
    upper.mkdir(mode=0o755, exist_ok=True)
    os.chown(upper, status.st_uid, status.st_gid)
    os.chmod(upper, stat.S_IMODE(status.st_mode))
