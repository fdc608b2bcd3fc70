"""One discrepancy between ledger and kernel, in words for people and in JSON for scripts."""

from __future__ import annotations

from dataclasses import asdict, dataclass

LEAKED = "leaked"
MISSING = "missing"
ORPHANED = "orphaned"
#: Worst first: what holds resources and is in no book; what is in the book for nobody; what is in the book only.
PROBLEMS = (LEAKED, ORPHANED, MISSING)

#: What a daemon does at its start with entries that nothing is behind.
RESTART = "restart the daemon: at its start it replays the ledger and strikes what is gone"


@dataclass(frozen=True, slots=True)
class Finding:
    """`problem` is leaked (in the kernel, not in the ledger), missing (the reverse) or orphaned (nobody holds it)."""

    problem: str
    kind: str
    key: str
    remedy: str
    holder: str = ""

    def rank(self) -> tuple[int, str, str]:
        """Sort findings: worst first, then by kind and key."""
        return PROBLEMS.index(self.problem), self.kind, self.key

    def to_json(self) -> dict[str, str]:
        """All fields by name."""
        return asdict(self)

    def __str__(self) -> str:
        of = f" of {self.holder}" if self.holder else ""
        return f"{self.problem}: {self.kind} {self.key}{of}; {self.remedy}"
