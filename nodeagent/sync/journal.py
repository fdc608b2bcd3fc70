"""What happened to pods, in words: the last events, each told once with a count, for `nodectl events` and the log.

The role of Kubernetes' Event objects, kept in memory: what is true now can always be derived, this is the story.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from dataclasses import dataclass
from typing import Any, Literal

from nodeagent.pods.pod import Key

log = logging.getLogger(__name__)

CAPACITY = 1000

Kind = Literal["Normal", "Warning"]


@dataclass(slots=True)
class Entry:
    """`first` and `last` in ns since the epoch; `number` grows with every change of any entry."""

    number: int
    key: Key
    kind: Kind
    reason: str
    message: str
    first: int
    last: int
    count: int = 1

    def to_json(self) -> dict[str, Any]:
        return {
            "number": self.number,
            "namespace": self.key.namespace,
            "pod": self.key.name,
            "type": self.kind,
            "reason": self.reason,
            "message": self.message,
            "firstTimestamp": self.first,
            "lastTimestamp": self.last,
            "count": self.count,
        }


class Journal:
    """The last events of all pods, at most CAPACITY; each change wakes those who wait for news."""

    def __init__(self) -> None:
        self._entries: deque[Entry] = deque(maxlen=CAPACITY)
        self._number = 0
        self._news = asyncio.Event()

    def tell(self, key: Key, reason: str, message: str, kind: Kind = "Normal") -> None:
        """Note an event. The same words again only count; they are logged when they are new."""
        self._number += 1
        now = time.time_ns()
        again = next((entry for entry in self._of(key) if (entry.reason, entry.message) == (reason, message)), None)
        if again is not None:
            self._entries.remove(again)
            again.number, again.last, again.count = self._number, now, again.count + 1
            self._entries.append(again)
        else:
            self._entries.append(Entry(self._number, key, kind, reason, message, now, now))
            log.log(logging.WARNING if kind == "Warning" else logging.INFO, "pod %s: %s: %s", key, reason, message)
        self._news.set()
        self._news = asyncio.Event()

    def warn(self, key: Key, reason: str, message: str) -> None:
        self.tell(key, reason, message, "Warning")

    def since(self, number: int) -> list[Entry]:
        """What changed after that number, oldest change first."""
        return [entry for entry in self._entries if entry.number > number]

    async def wait(self, number: int, timeout: float) -> list[Entry]:
        """As since(), but waits up to `timeout` seconds for something to tell."""
        try:
            async with asyncio.timeout(timeout):
                while self._number <= number:
                    await self._news.wait()
        except TimeoutError:
            return []
        return self.since(number)

    def _of(self, key: Key) -> list[Entry]:
        return [entry for entry in self._entries if entry.key == key]
