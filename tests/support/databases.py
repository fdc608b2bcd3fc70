"""A daemon's database, in trouble."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def locked_by_another(path: Path) -> Iterator[None]:
    """Nothing can be written meanwhile, as when somebody has left a transaction open in an sqlite3 shell."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
