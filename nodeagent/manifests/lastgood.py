"""The last good version of every manifest file, kept over restarts of the agent.

Without it a file that is broken when the agent starts would say nothing, and its pods, which run, would be taken for
pods that nobody wants. What cannot be written, on a full disk, is logged and stays as it was: the manifest itself is
there, and the next look at the directory tries again.
"""

from __future__ import annotations

import hashlib
import logging

from runtime.linux.database import DatabaseError
from runtime.linux.records import Records

log = logging.getLogger(__name__)

KIND = "manifest"


class LastGood:
    """Records of kind "manifest"; the id is the file's name within its directory."""

    def __init__(self, records: Records) -> None:
        self._records = records
        #: Names of what could not be written.
        self.owed: set[str] = set()
        self._digests = {name: _digest(doc["text"].encode()) for name, doc in records.all(KIND).items()}

    def names(self) -> set[str]:
        return set(self._digests)

    def get(self, name: str) -> bytes | None:
        doc = self._records.get(KIND, name)
        return doc["text"].encode() if doc else None

    def keep(self, name: str, data: bytes) -> None:
        """`data` was parsed, so it is UTF-8."""
        digest = _digest(data)
        self.owed.discard(name)
        if self._digests.get(name) == digest:
            return
        try:
            self._records.put(KIND, name, {"text": data.decode()})
        except DatabaseError as error:
            self.owed.add(name)
            log.error("manifest %s: should it be broken when the agent restarts, its pods end: %s", name, error)
        else:
            self._digests[name] = digest

    def forget(self, name: str) -> None:
        self.owed.discard(name)
        if name not in self._digests:
            return
        try:
            self._records.delete(KIND, name)
        except DatabaseError as error:
            self.owed.add(name)
            log.error("manifest %s: is gone, and still kept: %s", name, error)
        else:
            del self._digests[name]


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()
