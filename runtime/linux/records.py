"""Records: the metadata that must survive a reboot, as JSON documents beside the ledger in the same SQLite file.

A document is the writer's own dict and comes back as it was: fields that this version does not know are kept,
because nothing here looks inside.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from runtime.linux.database import open_database

FORMAT_VERSION = 1


class Records:
    """Documents by kind and id. Thread-safe; a call costs about 50 us and has reached the file when it returns."""

    def __init__(self, path: Path) -> None:
        """Open the records in the SQLite file `path` (made when missing); raises DatabaseError."""
        self._database = open_database(path)

    def put(self, kind: str, id: str, doc: dict[str, Any]) -> None:
        """Store a document, replacing what is there."""
        self._database.write(
            "INSERT OR REPLACE INTO records (kind, id, version, doc) VALUES (?, ?, ?, ?)",
            [(kind, id, FORMAT_VERSION, json.dumps(doc))],
        )

    def delete(self, kind: str, id: str) -> None:
        """Remove a document; an unknown one is no error."""
        self._database.write("DELETE FROM records WHERE kind = ? AND id = ?", [(kind, id)])

    def get(self, kind: str, id: str) -> dict[str, Any] | None:
        """One document, or None."""
        rows = self._database.read("SELECT doc FROM records WHERE kind = ? AND id = ?", (kind, id))
        return _document(rows[0][0]) if rows else None

    def all(self, kind: str) -> dict[str, dict[str, Any]]:
        """Every document of a kind, by id."""
        rows = self._database.read("SELECT id, doc FROM records WHERE kind = ? ORDER BY id", (kind,))
        return {id: _document(text) for id, text in rows}

    def close(self) -> None:
        """Close the file, unless the ledger of this process uses it."""
        self._database.close()


def _document(text: str) -> dict[str, Any]:
    doc: dict[str, Any] = json.loads(text)
    return doc
