"""The last good version of every manifest file, kept over restarts of the agent.

Without it a file that is broken when the agent starts would say nothing, and its pods, which run, would be taken for
pods that nobody wants.
"""

from __future__ import annotations

import hashlib

from runtime.linux.records import Records

KIND = "manifest"


class LastGood:
    """Records of kind "manifest"; the id is the file's name within its directory."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self._digests = {name: _digest(doc["text"].encode()) for name, doc in records.all(KIND).items()}

    def names(self) -> set[str]:
        return set(self._digests)

    def get(self, name: str) -> bytes | None:
        doc = self._records.get(KIND, name)
        return doc["text"].encode() if doc else None

    def keep(self, name: str, data: bytes) -> None:
        """`data` was parsed, so it is UTF-8."""
        digest = _digest(data)
        if self._digests.get(name) != digest:
            self._records.put(KIND, name, {"text": data.decode()})
            self._digests[name] = digest

    def forget(self, name: str) -> None:
        if self._digests.pop(name, None) is not None:
            self._records.delete(KIND, name)


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()
