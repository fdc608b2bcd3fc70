"""Tables that are read by people first: rows of text, columns divided by bars, the first line names them."""

from __future__ import annotations


def rows_of(table: str) -> list[dict[str, str]]:
    """Each row by the names of the columns. Raises ValueError for a row that is too short or too long."""
    head, *lines = (line for line in table.strip().splitlines() if line.strip("- |"))
    names = [name.strip() for name in head.split("|")]
    return [dict(zip(names, (cell.strip() for cell in line.split("|")), strict=True)) for line in lines]
