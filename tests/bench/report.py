"""Numbers to a table: percentiles of each row for one runtime, or for two with the ratio of their medians."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Samples = Mapping[str, Sequence[float]]


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table; `key` names its samples: seconds for the units ms and s, bytes for MB, a rate for /s."""

    key: str
    label: str
    unit: str

    @property
    def more_is_better(self) -> bool:
        return self.unit == "/s"


_SCALE = {"ms": 1e3, "s": 1.0, "MB": 1e-6, "/s": 1.0}


def percentile(samples: Sequence[float], percent: float) -> float:
    """Nearest rank: the smallest sample that at least `percent` of all do not exceed. Raises ValueError without any."""
    if not samples:
        raise ValueError("no samples")
    ordered = sorted(samples)
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]


def cell(samples: Sequence[float], unit: str) -> str:
    """p50 / p90 / p99; of fewer than five samples the median alone."""
    if not samples:
        return "-"
    shown = (50, 90, 99) if len(samples) >= 5 else (50,)
    return " / ".join(_number(percentile(samples, percent) * _SCALE[unit]) for percent in shown)


def table(rows: Sequence[Row], results: Mapping[str, Samples]) -> str:
    """Markdown. `results` maps runtimes' names, ours first, to their samples; rows without any are left out."""
    names = list(results)
    ratio = ["times better"] if len(names) == 2 else []
    lines = [["", "unit", *names, *ratio], ["---", "---", *["---:"] * (len(names) + len(ratio))]]
    for row in rows:
        measured = [results[name].get(row.key, ()) for name in names]
        if any(measured):
            line = [row.label, row.unit, *(cell(samples, row.unit) for samples in measured)]
            lines.append([*line, _ratio(row, *measured)] if ratio else line)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _ratio(row: Row, ours: Sequence[float], theirs: Sequence[float]) -> str:
    if not ours or not theirs:
        return "-"
    better, worse = percentile(ours, 50), percentile(theirs, 50)
    if row.more_is_better:
        better, worse = worse, better
    return f"{worse / better:.1f}" if better > 0 else "-"


def _number(value: float) -> str:
    """Three significant digits, no exponent."""
    digits = 0 if value >= 100 else 1 if value >= 10 else 2
    return f"{value:.{digits}f}"
