"""One record, one line: whatever stands in a name."""

from __future__ import annotations

import io
import logging

import pytest

from runtime.linux.journal import FORMAT, OneLine, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, with ümlauts and 猫", "plain, with ümlauts and 猫"),
        ("a\n2026-01-01 00:00:00,000 INFO forged", "a\\n2026-01-01 00:00:00,000 INFO forged"),
        ("\x1b[2J\x07\r", "\\x1b[2J\\x07\\r"),
        ("\u2028\u202e", "\\u2028\\u202e"),
        ("\udc80", "\\udc80"),
    ],
)
def test_what_is_not_printed_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_a_record_is_one_line_and_a_traceback_is_a_traceback() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(OneLine(FORMAT))
    log = logging.Logger("test")
    log.addHandler(handler)
    log.info("container %s started", "a\nb")
    assert stream.getvalue().endswith(" INFO container a\\nb started\n") and stream.getvalue().count("\n") == 1
    try:
        raise ValueError("x")
    except ValueError:
        log.exception("it failed")
    assert "\nValueError: x\n" in stream.getvalue()
