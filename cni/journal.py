"""Effects on their way into the ledger: written before they are done, in as few transactions as that allows.

What a plugin is going to do is planned as soon as it is known and written together with the first effect that cannot
wait, so a whole ADD costs one transaction. Without a ledger (a plugin that runs as a program) nothing is written:
whoever called it knows what it has to undo.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from runtime.linux.ledger import Effect, Ledger


class Journal:
    """The effects of one attachment; what a network has only once is held by the network itself."""

    def __init__(self, ledger: Ledger | None = None, *, holder: str = "", attachment: str = "") -> None:
        self._ledger = ledger
        self._holder = holder
        self._attachment = attachment
        self._planned: list[Effect] = []

    def plan(self, kind: str, key: str, detail: Mapping[str, Any] | None = None) -> None:
        """An effect that will be done after the next commit()."""
        marked = {"attachment": self._attachment} | dict(detail or {})
        self._planned.append(Effect(kind, key, self._holder, marked))

    def commit(self) -> None:
        """Write what is planned; afterwards it may be done."""
        if self._ledger is not None and self._planned:
            self._ledger.record(*self._planned)
        self._planned.clear()

    def shared(self, kind: str, key: str, network: str, detail: Mapping[str, Any] | None = None) -> None:
        """Write at once an effect that outlives the attachment: a network's bridge, its rules, a setting."""
        if self._ledger is not None:
            self._ledger.record(Effect(kind, key, network_holder(network), dict(detail or {})))


def network_holder(network: str) -> str:
    """The holder of what all attachments of a network share."""
    return f"network:{network}"
