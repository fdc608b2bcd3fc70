"""What nodectl shows: tables for people, documents for scripts.

On a terminal rich lays a table out and folds long cells; into a pipe go plain columns, as wide as they need be.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

FORMATS = ("table", "wide", "json")

SECOND = 10**9
_STEPS = ((365 * 86400, "y"), (86400, "d"), (3600, "h"), (60, "m"), (1, "s"))


def emit_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False), flush=True)


def plain(message: Message) -> dict[str, Any]:
    """A message as JSON has it; numbers of 64 bits are text there (protobuf's JSON mapping)."""
    document: dict[str, Any] = MessageToDict(message)
    return document


def parse_time(text: str) -> int:
    """ns since the epoch of an RFC 3339 time, to the microsecond; 0 for none. Raises ValueError."""
    if not text:
        return 0
    moment = datetime.fromisoformat(text)
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return int(moment.timestamp()) * SECOND + moment.microsecond * 1000


def age(since: int) -> str:
    """Time passed since then (ns), in its two leading units: "3d4h", "5m10s", "12d"; "-" for no time at all."""
    if since <= 0:
        return "-"
    seconds = max((time.time_ns() - since) // SECOND, 0)
    for index, (length, unit) in enumerate(_STEPS):
        count, rest = divmod(seconds, length)
        if not count:
            continue
        if count >= 10 or index + 1 == len(_STEPS):
            return f"{count}{unit}"
        smaller, name = _STEPS[index + 1]
        return f"{count}{unit}{rest // smaller}{name}" if rest // smaller else f"{count}{unit}"
    return "0s"


def size(count: int) -> str:
    """Bytes in powers of 1024: "512 B", "1.5 MiB"."""
    value, unit = float(count), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if value < 1000:
            break
        value, unit = value / 1024, larger
    return f"{value:.3g} {unit}" if value < 100 else f"{value:.0f} {unit}"


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Columns under their heads, as text without a last newline."""
    cells = [list(head), *([" ".join(str(cell).split()) or "-" for cell in row] for row in rows)]
    widths = [max(len(row[index]) for row in cells) for index in range(len(head))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in cells)
    return "\n".join(line.rstrip() for line in lines)


def is_terminal() -> bool:
    return sys.stdout.isatty()
