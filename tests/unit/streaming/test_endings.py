"""The two small formats of a session: how it ended, and how large the terminal is."""

from __future__ import annotations

import json

import pytest

from cri.server.streaming.resize import MAX_PENDING, SizeDecoder
from cri.server.streaming.status import Ending
from cri.streaming_client import StreamFailed, exit_code_of


def test_success_is_a_status_and_no_text() -> None:
    assert json.loads(Ending().as_status())["status"] == "Success"
    assert Ending().as_text() == b""


@pytest.mark.parametrize("code", [0, 1, 2, 137, 255])
def test_exit_codes_survive(code: int) -> None:
    assert exit_code_of(Ending(exit_code=code).as_status()) == code


def test_other_failures_keep_their_words() -> None:
    with pytest.raises(StreamFailed, match="no such container: web"):
        exit_code_of(Ending(error="no such container: web").as_status())


@pytest.mark.parametrize("status", [b"", b"{", b"[]", b"7", b'{"reason":"NonZeroExitCode"}', b'{"status":"Failure"}'])
def test_a_status_that_is_none(status: bytes) -> None:
    with pytest.raises(StreamFailed):
        exit_code_of(status)


@pytest.mark.parametrize("step", [1, 5, 1000])
def test_sizes_in_any_splitting(step: int) -> None:
    text = b'{"Width":80,"Height":24}\n{"Height": 50, "Width": 132}{"width":1,"height":65535}'
    decoder = SizeDecoder()
    sizes = [size for at in range(0, len(text), step) for size in decoder.feed(text[at : at + step])]
    assert sizes == [(24, 80), (50, 132), (65535, 1)]


@pytest.mark.parametrize(
    "text",
    [
        b"resize!",
        b'{"Width":80}',
        b'{"Width":"80","Height":"24"}',
        b'{"Width":-1,"Height":24}',
        b'{"Width":65536,"Height":24}',
        b"[80,24]",
        b'{"a":' * 20_000,
        b'{"Width":' + b"9" * 20_000 + b"}",
        b'{"' + b"x" * (MAX_PENDING + 1),
        b"\xff\xfe",
    ],
)
def test_what_is_no_size_ends_the_resizing(text: bytes) -> None:
    decoder = SizeDecoder()
    assert list(decoder.feed(text)) == []
    assert list(decoder.feed(b'{"Width":80,"Height":24}')) == []
