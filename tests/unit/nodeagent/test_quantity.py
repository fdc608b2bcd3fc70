"""Quantities: the table of the API's own examples, and what it refuses."""

from __future__ import annotations

import pytest

from nodeagent.pods import quantity


@pytest.mark.parametrize(
    ("text", "whole", "milli"),
    [
        ("0", 0, 0),
        ("1", 1, 1000),
        ("100m", 1, 100),
        ("0.5", 1, 500),
        (".5", 1, 500),
        ("1.", 1, 1000),
        ("1.5Gi", 3 << 29, 1000 * (3 << 29)),
        ("64Mi", 64 << 20, 1000 * (64 << 20)),
        ("128974848", 128974848, 128974848000),
        ("129e6", 129_000_000, 129_000_000_000),
        ("129M", 129_000_000, 129_000_000_000),
        ("123k", 123_000, 123_000_000),
        ("1n", 1, 1),
        ("-2", -2, -2000),
        (2, 2, 2000),
        (0.1, 1, 100),
    ],
)
def test_values_are_exact_and_rounded_up(text: str | int | float, whole: int, milli: int) -> None:
    assert quantity.whole(text) == whole
    assert quantity.milli(text) == milli


@pytest.mark.parametrize(
    "text", ["", "x", "1 Gi", "1gi", "1KI", "Gi", "1e", "1e3Ki", "--1", "1,5", "0x10", "1e999", "9Ei9", "16Ei", "1_000"]
)
def test_what_is_no_quantity_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"quantity|range|larger"):
        quantity.parse(text)
