"""Progress of a pull, for whoever shows it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

INTERVAL = 0.1


@dataclass(frozen=True, slots=True)
class Progress:
    """How far one pull is: bytes of the layers that were not here before, as the registry stores them."""

    reference: str
    done: int
    total: int


class Meter:
    """Counts for one pull, and reports at most ten times a second."""

    def __init__(self, reference: str, report: Callable[[Progress], None] | None) -> None:
        self._reference = reference
        self._report = report
        self._done = self._total = 0
        self._next = 0.0
        self._begun = time.monotonic()

    def expect(self, size: int) -> None:
        """So many bytes are to come."""
        self._total += size

    def count(self, size: int) -> None:
        """So many bytes have come."""
        self._done += size
        now = time.monotonic()
        if self._report is not None and (now >= self._next or self._done == self._total):
            self._next = now + INTERVAL
            self._report(Progress(self._reference, self._done, self._total))

    def __str__(self) -> str:
        return f"{self._done / 1e6:.1f} MB of layers in {time.monotonic() - self._begun:.2f} s"
