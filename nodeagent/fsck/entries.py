"""The ledger as it was before and after the kernel was read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from runtime.linux.ledger import Effect, read_ledger


def read_entries(root: Path) -> list[Effect]:
    """The entries of every daemon that keeps a database in `root`. Raises DatabaseError."""
    return [entry for path in sorted(root.glob("*.db")) for entry in read_ledger(path)]


class Entries:
    """Two readings of the ledger: what stood there at either time explains the kernel, what stands at both is due."""

    def __init__(self, before: list[Effect], after: list[Effect]) -> None:
        self._either = {(entry.owner, entry.kind, entry.key): entry for entry in [*before, *after]}
        early = {(entry.owner, entry.kind, entry.key, entry.created) for entry in before}
        self._both = [entry for entry in after if (entry.owner, entry.kind, entry.key, entry.created) in early]
        #: sandboxes and pods that are in the ledger, and those of them that have a network namespace
        self.holders = {entry.holder for entry in self._either.values() if entry.kind == "dir"}
        self.networked = {entry.holder for entry in self._both if entry.kind == "netns"}

    def known(self, *kinds: str) -> dict[str, Effect]:
        """Entries that explain something in the kernel, by key."""
        return {entry.key: entry for entry in self._either.values() if entry.kind in kinds}

    def due(self, kind: str) -> Iterator[Effect]:
        """Entries that must have something behind them."""
        return (entry for entry in self._both if entry.kind == kind)

    def all_due(self) -> list[Effect]:
        """The same, of every kind."""
        return self._both
