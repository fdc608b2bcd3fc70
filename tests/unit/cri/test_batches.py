"""Messages of the Stream calls: every item once, none empty, none large."""

from __future__ import annotations

import pytest

from cri.server.calls.batches import BYTES, ITEMS, batches


@pytest.mark.parametrize(
    ("sizes", "lengths"),
    [
        ([], []),
        ([1], [1]),
        ([1] * (2 * ITEMS + 1), [ITEMS, ITEMS, 1]),
        ([BYTES // 4] * 9, [4, 4, 1]),
        ([2 * BYTES] * 3, [1, 1, 1]),
    ],
)
def test_batches(sizes: list[int], lengths: list[int]) -> None:
    made = list(batches(sizes, lambda size: size))
    assert [len(batch) for batch in made] == lengths
    assert [size for batch in made for size in batch] == sizes
