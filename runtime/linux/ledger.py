"""The ledger: every effect outside the process is written here before it is done and struck out after it is undone.

    crash anywhere  =>  what is in the kernel is in the ledger (perhaps more is in the ledger than in the kernel)

so a start after kill -9 can adopt what lives and undo what does not, and fsck can compare both sides. Entries
belong to an owner (a daemon), carry the boot id, and name their holder: the sandbox id or the pod uid on whose
behalf the effect is, so that one query finds everything that a pod has left.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runtime.linux.database import Database, DatabaseError, open_database, read_only
from runtime.linux.files import boot_id

log = logging.getLogger("ledger")

KINDS = (
    "process",  # key: pid; detail: its start time too
    "mount",  # key: mount point
    "netns",  # key: path of the pin
    "link",  # key: interface name in the host's network namespace
    "route",  # key: interface that has a local route to ::1
    "ip",  # key: address
    "nft",  # key: table or element
    "sysctl",  # key: path below /proc/sys; detail: the value it had, and has
    "cgroup",  # key: logical path
    "snapshot",  # key: snapshot id
    "ingest",  # key: digest or partial file
    "dir",  # key: path
    "loop",  # key: device
    "volume",  # key: target path
    "cni",  # key: container id / interface: an attachment
)
#: Kinds whose effects live in the kernel only: a reboot has undone them.
VOLATILE = frozenset({"process", "mount", "netns", "link", "route", "nft", "sysctl", "cgroup", "loop"})

COLUMNS = "owner, kind, key, holder, detail, boot_id, created"


@dataclass(frozen=True, slots=True)
class Effect:
    """One effect. `owner`, `boot_id` and `created` (ns since the epoch) are filled in by the ledger."""

    kind: str
    key: str
    holder: str = ""
    detail: Mapping[str, Any] = field(default_factory=dict)
    owner: str = ""
    boot_id: str = ""
    created: int = 0

    @property
    def outlived(self) -> bool:
        """Whether a reboot has undone it: the kernel that held it is gone."""
        return self.kind in VOLATILE and self.boot_id != boot_id()


class Ledger:
    """The entries of one owner. Thread-safe; a call costs about 50 us and has reached the file when it returns."""

    def __init__(self, path: Path, owner: str) -> None:
        """Open the ledger in the SQLite file `path` (made when missing); raises DatabaseError."""
        self.owner = owner
        #: What could not be struck out yet; with the lock, under which it always agrees with what is written.
        self._owed: dict[tuple[str, str], None] = {}
        self._lock = threading.Lock()
        self._database: Database = open_database(path)

    def record(self, *effects: Effect) -> None:
        """Write effects, all or none, before they are done; one that is there already is replaced."""
        unknown = [effect.kind for effect in effects if effect.kind not in KINDS]
        if unknown:
            raise ValueError(f"no such kind of effect: {', '.join(unknown)}")
        now, boot = time.time_ns(), boot_id()
        rows = [(self.owner, e.kind, e.key, e.holder, json.dumps(dict(e.detail)), boot, now) for e in effects]
        with self._lock:
            self._database.write(f"INSERT OR REPLACE INTO ledger ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
            self._forgive((effect.kind, effect.key) for effect in effects)

    def strike(self, *effects: Effect | tuple[str, str]) -> None:
        """Strike out effects, or (kind, key) pairs, after they are undone; unknown ones are no error.

        What cannot be struck out, on a full disk or beside a writer that does not end, is logged and goes with a later
        strike: too much in the ledger does no harm, while an undo that fails for it would keep the disk full.
        """
        with self._lock:
            keys = [*self._owed, *((e.kind, e.key) if isinstance(e, Effect) else e for e in effects)]
            try:
                self._database.write(
                    "DELETE FROM ledger WHERE owner = ? AND kind = ? AND key = ?", [(self.owner, *key) for key in keys]
                )
            except DatabaseError as error:
                self._owed.update(dict.fromkeys(keys))
                log.error("%d effects that are undone still stand in the ledger: %s", len(self._owed), error)
            else:
                self._forgive(keys)

    def _forgive(self, keys: Iterable[tuple[str, str]]) -> None:
        for key in keys:
            self._owed.pop(key, None)

    def entries(self, kind: str | None = None, holder: str | None = None) -> list[Effect]:
        """What stands in the ledger, oldest first, optionally of one kind or one holder."""
        rows = self._database.read(
            f"SELECT {COLUMNS} FROM ledger WHERE owner = ? AND kind = ifnull(?, kind)"
            " AND holder = ifnull(?, holder) ORDER BY created, kind, key",
            (self.owner, kind, holder),
        )
        return [_effect(row) for row in rows]

    def strike_outlived(self) -> list[Effect]:
        """Strike out what a reboot has undone, and return it; for the start of a daemon."""
        rows = self._database.read(
            f"SELECT {COLUMNS} FROM ledger WHERE owner = ? AND boot_id != ? ORDER BY created, kind, key",
            (self.owner, boot_id()),
        )
        gone = [effect for effect in map(_effect, rows) if effect.outlived]
        self.strike(*gone)
        return gone

    def close(self) -> None:
        """Close the file, unless another ledger or record set of this process uses it."""
        self._database.close()


def read_ledger(path: Path) -> list[Effect]:
    """The entries of all owners, read beside a running daemon; none when the file does not exist."""
    if not path.exists():
        return []
    return [_effect(row) for row in read_only(path, f"SELECT {COLUMNS} FROM ledger ORDER BY created, kind, key")]


def _effect(row: tuple[Any, ...]) -> Effect:
    owner, kind, key, holder, detail, boot, created = row
    return Effect(kind, key, holder, json.loads(detail), owner, boot, created)
