"""What is wrong with a document, and where: the words of the API server's own validation, with field paths."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

Path = tuple[str | int, ...]

#: Characters of an offending value that a message repeats.
SHOWN = 60


@dataclass(frozen=True, slots=True)
class Problem:
    """`path` leads to the field from the document's root: ("spec", "containers", 0, "image")."""

    path: Path
    reason: str

    def __str__(self) -> str:
        return f"{dotted(self.path)}: {self.reason}"


@dataclass(slots=True)
class Findings:
    """Errors keep a document from being used; warnings only tell that a field does nothing here."""

    errors: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)

    def error(self, path: Path, reason: str) -> None:
        self.errors.append(Problem(path, reason))

    def warn(self, path: Path, reason: str) -> None:
        self.warnings.append(Problem(path, reason))

    def required(self, path: Path, why: str = "") -> None:
        self.error(path, f"Required value: {why}" if why else "Required value")

    def invalid(self, path: Path, value: Any, why: str) -> None:
        self.error(path, f"Invalid value: {shown(value)}: {why}")

    def unsupported(self, path: Path, value: Any, choices: Iterable[str], instead: str = "") -> None:
        known = ", ".join(f'"{choice}"' for choice in choices)
        remedy = f"; {instead}" if instead else ""
        self.error(path, f"Unsupported value: {shown(value)}: supported values: {known}{remedy}")

    def duplicate(self, path: Path, value: Any) -> None:
        self.error(path, f"Duplicate value: {shown(value)}")

    def missing(self, path: Path, value: Any) -> None:
        self.error(path, f"Not found: {shown(value)}")


def dotted(path: Path) -> str:
    """spec.containers[0].image; keys with dots or slashes stand in brackets."""
    return "".join(_steps(path)) or "(document)"


def _steps(path: Path) -> Iterator[str]:
    for index, step in enumerate(path):
        if isinstance(step, int) or not step.replace("-", "").isalnum():
            yield f"[{step}]"
        else:
            yield f".{step}" if index else step


def shown(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    text = text if len(text) <= SHOWN else text[:SHOWN] + "..."
    return '"' + text.replace("\n", "\\n") + '"' if isinstance(value, str) else text
