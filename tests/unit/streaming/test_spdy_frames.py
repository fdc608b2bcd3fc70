"""The framing: every frame in every splitting, and bytes that are no frames at all."""

from __future__ import annotations

import random
import struct
import zlib

import pytest

from cri.server.streaming.spdy import frames
from cri.server.streaming.spdy.decoder import MAX_CONTROL, FrameDecoder
from cri.server.streaming.spdy.header_block import (
    DICTIONARY,
    MAX_INFLATED,
    MAX_PAIRS,
    HeaderReader,
    HeaderWriter,
    ProtocolError,
)


def syn_stream(stream_id: int, block: bytes, flags: int = 0) -> bytes:
    return frames.control(frames.SYN_STREAM, struct.pack("!IIBB", stream_id, 0, 0, 0) + block, flags)


def decode(data: bytes, step: int) -> list[frames.Frame]:
    decoder = FrameDecoder()
    return [frame for at in range(0, len(data), step) for frame in decoder.feed(data[at : at + step])]


def joined(found: list[frames.Frame]) -> list[frames.Frame]:
    """Data frames come in as many pieces as the splitting makes of them; put back together they must be equal."""
    whole: list[frames.Frame] = []
    for frame in found:
        last = whole[-1] if whole else None
        if isinstance(frame, frames.Data) and isinstance(last, frames.Data) and last.stream_id == frame.stream_id:
            whole[-1] = frames.Data(frame.stream_id, last.payload + frame.payload, frame.fin)
        else:
            whole.append(frame)
    return whole


def test_dictionary_is_the_published_one() -> None:
    # The Adler-32 that SPDY/3 peers send as DICTID in the zlib header.
    assert len(DICTIONARY) == 1423
    assert zlib.adler32(DICTIONARY) == 0xE3C6A7C2


@pytest.mark.parametrize("step", [1, 2, 3, 7, 8, 9, 100, 10_000])
def test_frames_survive_any_splitting(step: int) -> None:
    headers = HeaderWriter()
    sent = b"".join(
        [
            syn_stream(1, headers.encode({"streamType": "error"})),
            syn_stream(3, headers.encode({"streamType": "data", "port": "80"}), frames.FLAG_FIN),
            frames.syn_reply(3, headers.encode({})),
            frames.data(1, b"x" * 1000),
            frames.control(99, b"unknown frames are skipped"),
            frames.data(1, b"", fin=True),
            frames.control(frames.SETTINGS, struct.pack("!III", 1, frames.SETTINGS_INITIAL_WINDOW_SIZE, 4096)),
            frames.window_update(1, 512),
            frames.ping(7),
            frames.reset(3, frames.RST_CANCEL),
            frames.go_away(3, frames.GOAWAY_OK),
        ]
    )
    assert joined(decode(sent, step)) == [
        frames.SynStream(1, {"streamtype": "error"}, fin=False),
        frames.SynStream(3, {"streamtype": "data", "port": "80"}, fin=True),
        frames.SynReply(3, {}, fin=False),
        frames.Data(1, b"x" * 1000, fin=True),
        frames.Settings(4096),
        frames.WindowUpdate(1, 512),
        frames.Ping(7),
        frames.Reset(3, frames.RST_CANCEL),
        frames.GoAway(3, frames.GOAWAY_OK),
    ]


def test_random_bytes_are_refused_or_ignored_never_more() -> None:
    dice = random.Random(1)
    for _ in range(2000):
        decoder = FrameDecoder()
        try:
            for _ in range(5):
                list(decoder.feed(dice.randbytes(dice.randrange(200))))
        except ProtocolError:
            continue


def test_damaged_frames_are_refused_or_ignored_never_more() -> None:
    dice = random.Random(2)
    for _ in range(2000):
        headers = HeaderWriter()
        sent = bytearray(
            syn_stream(1, headers.encode({"streamType": "stdin"})) + frames.data(1, b"y" * 50) + frames.ping(1)
        )
        for _ in range(dice.randrange(1, 4)):
            sent[dice.randrange(len(sent))] = dice.randrange(256)
        try:
            decode(bytes(sent), 16)
        except ProtocolError:
            continue


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (struct.pack("!II", 0x80020001, 10), "version 2"),
        (struct.pack("!II", 0x80030001, MAX_CONTROL + 1), "at most"),
        (frames.data(0, b"x"), "stream 0"),
        (frames.control(frames.PING, b""), "4 are needed"),
        (frames.control(frames.RST_STREAM, b"1234"), "8 are needed"),
        (frames.control(frames.SETTINGS, struct.pack("!I", 1 << 31)), "ends before"),
        (syn_stream(1, b"no zlib"), "does not decompress"),
    ],
)
def test_broken_frames_say_what_is_wrong(sent: bytes, reason: str) -> None:
    with pytest.raises(ProtocolError, match=reason):
        decode(sent, len(sent))


def test_a_small_block_that_inflates_is_refused() -> None:
    with pytest.raises(ProtocolError, match=f"{MAX_INFLATED} bytes or more"):
        HeaderReader().decode(HeaderWriter().encode({"bomb": "0" * 10_000_000}))


def test_header_blocks_have_limits() -> None:
    with pytest.raises(ProtocolError, match=f"at most {MAX_PAIRS}"):
        HeaderReader().decode(HeaderWriter().encode({f"h{n}": "" for n in range(MAX_PAIRS + 1)}))
    deflate = zlib.compressobj(zdict=DICTIONARY)
    lying = struct.pack("!II", 1, 1 << 30) + b"name"
    with pytest.raises(ProtocolError, match="ends early"):
        HeaderReader().decode(deflate.compress(lying) + deflate.flush(zlib.Z_SYNC_FLUSH))


def test_of_a_repeated_value_the_first_counts() -> None:
    assert HeaderReader().decode(HeaderWriter().encode({"Port": "80\x0081"})) == {"port": "80"}


def test_skipped_frames_cost_no_memory() -> None:
    decoder = FrameDecoder()
    list(decoder.feed(struct.pack("!II", 0x80030063, 0xFFFFFF)))
    for _ in range(16):
        assert list(decoder.feed(bytes(1 << 20)))[:0] == []
    assert len(decoder._buffer) < 64
