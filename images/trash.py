"""What is to be removed goes here by one rename, so that it is gone at once and whole, and is deleted afterwards."""

from __future__ import annotations

import itertools
import os
import time
from pathlib import Path

from runtime.linux.failpoints import failpoint
from runtime.linux.trees import remove_tree


class Trash:
    """A directory on the same filesystem as what is thrown into it. Any thread may call any method."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._names = (f"{time.time_ns():x}-{number}" for number in itertools.count())
        path.mkdir(mode=0o700, parents=True, exist_ok=True)

    def throw(self, path: Path) -> Path | None:
        """Take a file or a directory away from its place: where it is now, or None when nothing was there."""
        target = self._path / next(self._names)
        try:
            os.rename(path, target)
        except FileNotFoundError:
            return None
        failpoint("images.trash.thrown")
        return target

    def delete(self, thrown: Path | None) -> None:
        """Delete what throw() has returned; takes as long as it takes, and may be done again."""
        if thrown is None:
            return
        if thrown.is_dir() and not thrown.is_symlink():
            remove_tree(thrown)
        else:
            thrown.unlink(missing_ok=True)

    def empty(self) -> None:
        """Delete all that a crash has left here."""
        for thrown in list(self._path.iterdir()):
            self.delete(thrown)
