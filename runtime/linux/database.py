"""The one SQLite file of a daemon, which holds the ledger of effects and the records side by side.

WAL with synchronous=NORMAL: a commit is one write without an fsync (about 30 us), every commit survives kill -9
of the process at any instruction, and a power cut can lose the last commits but never tears one
(https://sqlite.org/pragma.html#pragma_synchronous). What a lost commit can leave behind then is on disk only
(the kernel forgets the rest), where fsck finds it.

One connection per file and process, shared and locked: crid calls from its event loop and from threads.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

SCHEMA_VERSION = 1
#: How long the lock of another process is waited for: when the file is opened or inspected, and by each statement of a
#: daemon afterwards. Daemons write from their event loops and are alone with their file, as inspection takes no lock of
#: writers (WAL): a lock that lasts is somebody's with an sqlite3 shell, and must not silence a daemon.
OPEN_SECONDS = 5.0
BUSY_SECONDS = 0.2
SCHEMA = """
CREATE TABLE IF NOT EXISTS ledger (
    owner TEXT NOT NULL, kind TEXT NOT NULL, key TEXT NOT NULL, holder TEXT NOT NULL,
    detail TEXT NOT NULL, boot_id TEXT NOT NULL, created INTEGER NOT NULL,
    PRIMARY KEY (owner, kind, key)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS ledger_by_holder ON ledger (owner, holder);
CREATE TABLE IF NOT EXISTS records (
    kind TEXT NOT NULL, id TEXT NOT NULL, version INTEGER NOT NULL, doc TEXT NOT NULL,
    PRIMARY KEY (kind, id)
) WITHOUT ROWID;
"""


class DatabaseError(RuntimeError):
    """SQLite refused: the message holds the file, what was tried and why."""


class DatabaseFull(DatabaseError):
    """There is no room on the file system for what was to be written."""


class DatabaseBusy(DatabaseError):
    """Another process holds the lock of writers."""


class Database:
    """A shared connection; use open_database() and close() in pairs."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.users = 0
        self._lock = threading.Lock()
        with _explained(path, "open"):
            # Autocommit mode: a transaction is where this module says BEGIN, nowhere else.
            self._connection = sqlite3.connect(
                path, timeout=OPEN_SECONDS, isolation_level=None, check_same_thread=False
            )
            try:
                self._prepare()
            except BaseException:
                self._connection.close()
                raise
        path.chmod(0o600)

    def _prepare(self) -> None:
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=NORMAL")
        found = self._connection.execute("PRAGMA user_version").fetchone()[0]
        if found > SCHEMA_VERSION:
            raise DatabaseError(
                f"{self.path}: written by a newer version (schema {found}, this one knows {SCHEMA_VERSION}); "
                "start that version, or move the file away after the node is drained"
            )
        if found < SCHEMA_VERSION:
            self._connection.executescript(f"BEGIN IMMEDIATE;{SCHEMA};PRAGMA user_version={SCHEMA_VERSION};COMMIT;")
        self._connection.execute(f"PRAGMA busy_timeout={BUSY_SECONDS * 1000:.0f}")

    def write(self, sql: str, rows: Iterable[tuple[Any, ...]]) -> int:
        """Run one statement for every row in ONE transaction; returns how many table rows changed."""
        batch = list(rows)
        if not batch:
            return 0
        with self._lock, _explained(self.path, sql):
            if len(batch) == 1:  # a statement alone is a transaction already, and three calls cheaper
                return self._connection.execute(sql, batch[0]).rowcount
            return self._write_batch(sql, batch)

    def _write_batch(self, sql: str, batch: list[tuple[Any, ...]]) -> int:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            changed = self._connection.executemany(sql, batch).rowcount
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:  # a full disk has ended it already
                self._connection.execute("ROLLBACK")
            raise
        return changed

    def read(self, sql: str, parameters: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        """All rows of a query."""
        with self._lock, _explained(self.path, sql):
            return self._connection.execute(sql, parameters).fetchall()

    def close(self) -> None:
        """Give back one open_database(); the last one closes the file."""
        with _registry_lock:
            self.users -= 1
            if self.users:
                return
            _open.pop(self.path, None)
        with self._lock:
            self._connection.close()


_registry_lock = threading.Lock()
_open: dict[Path, Database] = {}


def open_database(path: Path) -> Database:
    """The process's one connection to this file, made with its tables (mode 0600) when it is not there yet."""
    path = path.resolve()
    with _registry_lock:
        database = _open.get(path)
        if database is None:
            database = _open[path] = Database(path)
        database.users += 1
        return database


def read_only(path: Path, sql: str) -> list[tuple[Any, ...]]:
    """All rows of a query on a file that another process may be writing: for inspection, nothing is created."""
    with (
        _explained(path, sql),
        contextlib.closing(
            sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=OPEN_SECONDS)
        ) as connection,
    ):
        return connection.execute(sql).fetchall()


@contextlib.contextmanager
def _explained(path: Path, what: str) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        words = f"{path}: {what.split(' (')[0]}: {error}"
        # Extended codes, of which SQLITE_IOERR has many, hold the plain one in their lowest byte.
        match getattr(error, "sqlite_errorcode", 0) & 0xFF:
            case sqlite3.SQLITE_FULL:
                raise DatabaseFull(f"{words}; free space on the file system of {path.parent}") from error
            case sqlite3.SQLITE_BUSY:
                raise DatabaseBusy(f"{words} by another process; find it with `fuser {path}` and end it") from error
        raise DatabaseError(words) from error
