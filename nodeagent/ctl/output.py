"""Documents shown as a table for people or as JSON for scripts.

A verb makes documents, once; columns say how a person sees them, and `-o json` shows them as they are. On a terminal
rich lays the table out and colours it; into a pipe go plain columns, as wide as they need be, nothing cut off.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

Document = dict[str, Any]

TABLE, WIDE, JSON = "table", "wide", "json"
UNFOLDED = 1000


@dataclass(frozen=True, slots=True)
class Column:
    """`key` of the document, or a function of it; `style` picks a colour (rich's words) from the shown text."""

    header: str
    value: str | Callable[[Document], Any]
    wide: bool = False
    right: bool = False
    style: Callable[[str], str] | None = None

    def text(self, document: Document) -> str:
        value = document.get(self.value) if isinstance(self.value, str) else self.value(document)
        return "-" if value is None or value == "" else str(value)


class Output:
    """`format` is one of FORMATS."""

    def __init__(self, format: str = TABLE, stream: TextIO | None = None) -> None:
        self.format = format
        self._stream = stream or sys.stdout
        self.console = Console(file=self._stream, highlight=False, soft_wrap=False)

    def items(self, kind: str, columns: Sequence[Column], documents: Sequence[Document], **more: Any) -> None:
        """A list; `more` goes into the JSON document beside kind and items."""
        if self.format == JSON:
            return self.json({"kind": kind, "items": list(documents), **more})
        shown = [column for column in columns if self.format == WIDE or not column.wide]
        if self.console.is_terminal and self.format == WIDE:
            # Asked for all of it, nothing is folded into narrow columns: the terminal breaks the lines.
            unfolded = Console(file=self._stream, highlight=False, width=UNFOLDED)
            unfolded.print(table(shown, documents), soft_wrap=True)
        elif self.console.is_terminal:
            self.console.print(table(shown, documents))
        else:
            self.line(*plain(shown, documents))

    def json(self, value: Any) -> None:
        self.line(json.dumps(value, indent=2, ensure_ascii=False))

    def line(self, *lines: str) -> None:
        for each in lines:
            print(each, file=self._stream, flush=True)


def table(columns: Sequence[Column], documents: Iterable[Document]) -> Table:
    """For a terminal: long cells fold inside their column; numbers do not."""
    drawn = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        drawn.add_column(
            column.header, justify="right" if column.right else "left", overflow="fold", no_wrap=column.right
        )
    for document in documents:
        cells = []
        for column in columns:
            text = column.text(document)
            cells.append(Text(text, style=column.style(text) if column.style else ""))
        drawn.add_row(*cells)
    return drawn


def plain(columns: Sequence[Column], documents: Iterable[Document]) -> list[str]:
    """For a pipe: one line for each document, cells at least two spaces apart."""
    rows = [[column.header for column in columns]]
    rows += [[_flat(column.text(document)) for column in columns] for document in documents]
    widths = [max(len(row[index]) for row in rows) for index in range(len(columns))]
    aligned = (
        [
            cell.rjust(width) if column.right else cell.ljust(width)
            for cell, width, column in zip(row, widths, columns, strict=True)
        ]
        for row in rows
    )
    return ["  ".join(row).rstrip() for row in aligned]


def _flat(text: str) -> str:
    return " ".join(text.split())
