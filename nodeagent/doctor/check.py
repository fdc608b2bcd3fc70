"""One thing that was looked at."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import Enum


class Verdict(Enum):
    """LACKS: something works less well or not at all; BROKEN: no node can run here."""

    OK = "ok"
    LACKS = "lacks"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True)
class Check:
    """`found` is what is there, `remedy` what to do; a check that is OK has none."""

    name: str
    verdict: Verdict
    found: str
    remedy: str = ""

    def to_json(self) -> dict[str, str]:
        return asdict(self) | {"verdict": self.verdict.value}


def judged(name: str, good: bool, found: str, remedy: str, bad: Verdict = Verdict.LACKS) -> Check:
    """OK when `good`; the remedy is for the other case."""
    return Check(name, Verdict.OK, found) if good else Check(name, bad, found, remedy)
