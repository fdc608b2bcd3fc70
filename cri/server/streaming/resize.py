"""Terminal sizes from a client's resize stream: JSON objects {"Width": 80, "Height": 24}, one behind the other."""

from __future__ import annotations

import json
from collections.abc import Iterator

MAX_PENDING = 4096  # bytes of an object that has not ended yet; whole ones have about 30


class SizeDecoder:
    """Feed it the stream's bytes; it yields (rows, columns). What is no terminal size ends it for good, silently."""

    def __init__(self) -> None:
        self._text = ""
        self._broken = False
        self._decoder = json.JSONDecoder()

    def feed(self, received: bytes) -> Iterator[tuple[int, int]]:
        if self._broken:
            return
        self._text += received.decode("utf-8", "replace")
        while text := self._text.lstrip():
            try:
                value, end = self._decoder.raw_decode(text)
            except (ValueError, RecursionError) as error:  # too long a number, too deep a nesting: hostile, not cut off
                cut_off = isinstance(error, json.JSONDecodeError) and text.startswith("{") and len(text) <= MAX_PENDING
                self._broken = not cut_off
                return
            self._text = text[end:]
            size = _size(value)
            if size is None:
                self._broken = True
                return
            yield size


def _size(value: object) -> tuple[int, int] | None:
    if not isinstance(value, dict):
        return None
    fields = {str(name).lower(): number for name, number in value.items()}
    rows, columns = fields.get("height"), fields.get("width")
    if not isinstance(rows, int) or not isinstance(columns, int):
        return None
    return (rows, columns) if 0 <= rows <= 0xFFFF and 0 <= columns <= 0xFFFF else None
