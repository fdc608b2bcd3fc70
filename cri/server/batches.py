"""Lists cut into the messages of the Stream calls (KEP-5825): never an empty one, each far below any size limit."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import TypeVar

BATCH = 64
"""Items per message; annotations may hold 256 KiB for each, and clients accept 16 MiB."""

T = TypeVar("T")


def batches(items: Iterable[T]) -> Iterator[list[T]]:
    """The items in lists of 1 to BATCH."""
    iterator = iter(items)
    while batch := list(itertools.islice(iterator, BATCH)):
        yield batch
