"""Lists cut into the messages of the Stream calls (KEP-5825): never an empty one, each far below any size limit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

ITEMS = 64
#: A message is ended by the item that reaches this; annotations alone may be 256 KiB, and clients accept 16 MiB.
BYTES = 1 << 20

T = TypeVar("T")


def batches(items: Iterable[T], size: Callable[[T], int]) -> Iterator[list[T]]:
    """The items in lists of 1 to ITEMS; `size` tells about how many bytes an item takes."""
    batch: list[T] = []
    left = BYTES
    for item in items:
        batch.append(item)
        left -= size(item)
        if len(batch) == ITEMS or left <= 0:
            yield batch
            batch, left = [], BYTES
    if batch:
        yield batch
