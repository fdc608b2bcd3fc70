"""Sizes, times and ages, as people write and read them."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from nodeagent.logs.lines import nanoseconds as nanoseconds

SECOND = 10**9
_STEPS = ((365 * 86400, "y"), (86400, "d"), (3600, "h"), (60, "m"), (1, "s"))
_UNITS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_PART = re.compile(r"(\d+(?:\.\d+)?)(d|h|ms|m|s)")


def age(since_ns: int, now_ns: int) -> str:
    """The two leading units of a duration ("3d4h", "5m10s"), one from ten of it on ("12d"); "-" for no time at all."""
    if since_ns <= 0:
        return "-"
    seconds = max((now_ns - since_ns) // SECOND, 0)
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
    if count < 1024:
        return f"{count} B"
    value = float(count)
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        value /= 1024
        if value < 1000 or unit == "TiB":
            return f"{value:.3g} {unit}" if value < 100 else f"{value:.0f} {unit}"
    raise AssertionError("not reached: the last unit takes all")


def timestamp(ns: int) -> str | None:
    """RFC 3339 in UTC with nanoseconds, None for no time: what JSON documents carry."""
    if ns <= 0:
        return None
    return f"{datetime.fromtimestamp(ns // SECOND, UTC):%Y-%m-%dT%H:%M:%S}.{ns % SECOND:09d}Z"


def moment_before(text: str, now_ns: int) -> int:
    """What `--since` means, in ns: a duration back from now ("90s", "1h30m") or an RFC 3339 time. Raises ValueError."""
    parts = _PART.findall(text)
    if parts and "".join(number + unit for number, unit in parts) == text:
        return now_ns - int(sum(float(number) * _UNITS[unit] for number, unit in parts) * SECOND)
    if moment := nanoseconds(text):
        return moment
    raise ValueError(f"{text!r} is neither a duration (90s, 1h30m, 2d) nor a time (2030-01-31T12:00:00Z)")
