"""NRI's wire: frames of ttrpc in payloads of the multiplexer, with their limits."""

from __future__ import annotations

import asyncio
import random

import pytest

from cri.server.nri import mux, ttrpc
from cri.server.nri.errors import ProtocolError


async def payloads(data: bytes) -> list[tuple[int, bytes]]:
    reader = asyncio.StreamReader()
    reader.feed_data(data)
    reader.feed_eof()
    found = []
    while not reader.at_eof():
        found.append(await mux.read_payload(reader))
    return found


async def test_frames_survive_the_wire_however_they_are_cut() -> None:
    sizes = (0, 1, 4085, 4086, 4087, 8191, 8192, 100_000, ttrpc.DATA_MAX)
    frames = [ttrpc.Frame(2 * at + 1, ttrpc.REQUEST, random.randbytes(size)) for at, size in enumerate(sizes)]
    wire = b"".join(mux.wrap(mux.PLUGIN, ttrpc.encode(*frame)) for frame in frames)
    together = b"".join(payload for _, payload in await payloads(wire))
    for step in (len(together), 65_536, 1009):
        decoder = ttrpc.Decoder()
        parts = [together[at : at + step] for at in range(0, len(together), step)]
        assert [frame for part in parts for frame in decoder.feed(part)] == frames


async def test_a_message_is_cut_as_the_published_reader_needs_it() -> None:
    for size, parts in ((100, [110]), (4086, [4096]), (4087, [4096, 1]), (50_000, [4096, 45_914])):
        wire = mux.wrap(mux.RUNTIME, ttrpc.encode(1, ttrpc.RESPONSE, bytes(size)))
        assert [len(payload) for _, payload in await payloads(wire)] == parts


async def test_what_is_too_long_is_refused_before_it_is_read() -> None:
    with pytest.raises(ProtocolError, match="4194315 bytes"):
        await payloads(mux.HEADER.pack(1, ttrpc.FRAME_MAX + 1))
    with pytest.raises(ProtocolError, match="4194305 bytes"):
        list(ttrpc.Decoder().feed(ttrpc.HEADER.pack(ttrpc.DATA_MAX + 1, 1, ttrpc.REQUEST, 0)))
    with pytest.raises(ProtocolError, match="cannot be sent"):
        ttrpc.encode(1, ttrpc.REQUEST, bytes(ttrpc.DATA_MAX + 1))


def test_streams_of_data_are_no_part_of_it() -> None:
    with pytest.raises(ProtocolError, match="type 3"):
        list(ttrpc.Decoder().feed(ttrpc.HEADER.pack(0, 1, 3, 0)))


def test_garbage_is_a_protocol_error_and_nothing_else() -> None:
    chance = random.Random(20261121)
    for _ in range(2000):
        data = chance.randbytes(chance.randrange(64))
        decoder = ttrpc.Decoder()
        try:
            for frame in decoder.feed(data):
                ttrpc.parse_request(frame)
                ttrpc.parse_response(frame)
        except ProtocolError:
            continue


def test_a_call_and_its_answers_are_what_ttrpc_has() -> None:
    [frame] = ttrpc.Decoder().feed(ttrpc.request(3, "a.Service", "Method", b"payload", 1.5))
    call = ttrpc.parse_request(frame)
    assert (frame.stream, call.service, call.method, call.payload) == (3, "a.Service", "Method", b"payload")
    assert call.timeout_nano == 1_500_000_000
    [frame] = ttrpc.Decoder().feed(ttrpc.response(3, b"", ttrpc.UNIMPLEMENTED, "no"))
    answer = ttrpc.parse_response(frame)
    assert (answer.status.code, answer.status.message) == (12, "no")
