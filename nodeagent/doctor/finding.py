"""One answer of the doctor."""

from __future__ import annotations

from dataclasses import asdict, dataclass

OK, WARN, FAIL = "ok", "warn", "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """`found` is the fact. `follows` and `remedy` are empty where all is well; FAIL means that pods cannot run."""

    area: str
    subject: str
    verdict: str
    found: str
    follows: str = ""
    remedy: str = ""

    def to_json(self) -> dict[str, str]:
        """All fields by name."""
        return asdict(self)


def judge(
    area: str, subject: str, good: bool, found: str, follows: str, remedy: str, *, fatal: bool = False
) -> Finding:
    """OK with the fact alone, or else WARN (with `fatal` FAIL) with all of it."""
    if good:
        return Finding(area, subject, OK, found)
    return Finding(area, subject, FAIL if fatal else WARN, found, follows, remedy)
