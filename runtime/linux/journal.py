"""What a daemon says on stderr, where the journal takes it line by line: one record, one line.

Names in requests, words of registries and of other programs stand in it. A newline in one of them would begin a line
of anybody's making, and an escape sequence would run in the administrator's terminal.
"""

from __future__ import annotations

import logging
import sys
from typing import Final

FORMAT: Final = "%(asctime)s %(levelname)s %(message)s"


class OneLine(logging.Formatter):
    """A formatter whose messages hold no character that is not printed; tracebacks keep their lines."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The line of a record."""
        record.message = printable(record.message)
        return super().formatMessage(record)


def printable(text: str) -> str:
    """The text with everything else as a Python escape, as in `a\\nb`."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def log_to_stderr() -> None:
    """Set the process's logging up: from INFO on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLine(FORMAT))
    logging.basicConfig(handlers=[handler], level=logging.INFO)
