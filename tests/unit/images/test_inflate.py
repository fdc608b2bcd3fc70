"""Blobs that are read while they grow, and what is made of their bytes."""

from __future__ import annotations

import gzip
import os
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import zstandard

from images.blobs import BlobReader, Growth
from images.errors import ImageError, MalformedImage, TooLarge
from images.inflate import ReadAhead, inflated, limited
from images.limits import Limits

CONTENT = b"".join(b"%d " % (number * number) for number in range(50_000))
FORMS = {
    "plain": CONTENT,
    "gzip": gzip.compress(CONTENT, 1),
    "gzip members": b"".join(gzip.compress(CONTENT[at : at + 9000], 1) for at in range(0, len(CONTENT), 9000)),
    "gzip padded": gzip.compress(CONTENT, 1) + b"\0" * 600,
    "zstd": zstandard.compress(CONTENT, 1),
    "zstd frames": zstandard.compress(CONTENT[:1000])
    + b"\x50\x2a\x4d\x18\x04\0\0\0skip"
    + zstandard.compress(CONTENT[1000:]),
}

CHECKED = zstandard.ZstdCompressor(write_checksum=True).compress(CONTENT)
#: A zstd frame of one byte that asks for a window of 1 GiB (RFC 8878, 3.1.1.1.2).
HUGE_WINDOW = b"\x28\xb5\x2f\xfd\x00\xa0" + b"\x09\x00\x00x"


def complete(tmp_path: Path, data: bytes) -> BlobReader:
    (tmp_path / "blob").write_bytes(data)
    return BlobReader(Growth.complete(tmp_path / "blob", len(data)))


@pytest.mark.parametrize("form", FORMS)
def test_every_form(tmp_path: Path, form: str) -> None:
    with complete(tmp_path, FORMS[form]) as blob:
        assert b"".join(inflated(blob)) == CONTENT
        assert blob.tell() == len(FORMS[form])


@pytest.mark.parametrize("form", FORMS)
def test_reading_while_it_grows(tmp_path: Path, form: str) -> None:
    data, growth = FORMS[form], Growth()

    def write() -> None:
        with (tmp_path / "ingest").open("wb", buffering=0) as file:
            growth.begin(tmp_path / "ingest")
            for at in range(0, len(data), max(1, len(data) // 7)):
                time.sleep(0.002)
                growth.advance(at + (file.write(data[at : at + max(1, len(data) // 7)]) or 0))
        growth.finish(tmp_path / "blob")

    writer = threading.Thread(target=write)
    with BlobReader(growth) as blob:
        writer.start()
        assert b"".join(inflated(blob)) == CONTENT
    writer.join()
    with BlobReader(growth) as late:  # the file has got its final name meanwhile
        assert b"".join(inflated(late)) == CONTENT


@pytest.mark.parametrize(
    "data",
    [
        FORMS["gzip"][:-9],
        FORMS["gzip"][:5],
        FORMS["gzip"][:40] + bytes(20) + FORMS["gzip"][60:],
        FORMS["gzip"] + b"garbage",
        CHECKED[:40] + bytes(20) + CHECKED[60:],
        CHECKED[:4] + b"\xff" * 900,
        HUGE_WINDOW,
    ],
    ids=["gzip cut", "gzip header only", "gzip damaged", "gzip garbage", "zstd damaged", "zstd header", "zstd window"],
)
def test_damage(tmp_path: Path, data: bytes) -> None:
    with complete(tmp_path, data) as blob:
        with pytest.raises(MalformedImage, match="damaged"):
            list(inflated(blob))


def test_empty_and_tiny_blobs(tmp_path: Path) -> None:
    for data in (b"", b"\x1f", b"ab"):
        with complete(tmp_path, data) as blob:
            assert b"".join(inflated(blob)) == data


def test_a_bomb_is_stopped_while_it_grows(tmp_path: Path) -> None:
    bomb = zlib.compress(bytes(64 << 20), 9, wbits=31)
    limits = Limits(ratio=100, ratio_free=8 << 20)
    with complete(tmp_path, bomb) as blob:
        seen = 0
        with pytest.raises(TooLarge, match="bomb"):
            for chunk in limited(inflated(blob), blob, limits):
                seen += len(chunk)
        assert seen < 24 << 20
    with complete(tmp_path, bomb) as blob, pytest.raises(TooLarge, match="more than 1048576 bytes"):
        list(limited(inflated(blob), blob, Limits(unpacked=1 << 20)))


def test_a_failed_download_ends_its_readers(tmp_path: Path) -> None:
    growth = Growth()
    (tmp_path / "ingest").write_bytes(FORMS["gzip"][:100])
    growth.begin(tmp_path / "ingest")
    growth.advance(100)
    threading.Timer(0.05, growth.fail, [ImageError("registry is gone")]).start()
    with BlobReader(growth) as blob, pytest.raises(ImageError, match="registry is gone"):
        list(inflated(blob))


def test_a_stopped_reader_ends_alone(tmp_path: Path) -> None:
    growth = Growth()
    with BlobReader(growth) as blob:
        threading.Timer(0.05, blob.stop, [ImageError("given up")]).start()
        with pytest.raises(ImageError, match="given up"):
            blob.head(4)
    (tmp_path / "ingest").write_bytes(b"abcd")
    growth.begin(tmp_path / "ingest")
    growth.advance(4)
    with BlobReader(growth) as other:
        assert other.head(4) == b"abcd"


def test_read_ahead_hands_on_chunks_and_errors() -> None:
    def chunks() -> Iterator[bytes]:
        yield from (b"a", b"b", b"c")
        raise MalformedImage("broken")

    seen = []
    with pytest.raises(MalformedImage, match="broken"), ReadAhead(chunks()) as ahead:
        for chunk in ahead:
            seen.append(chunk)
    assert seen == [b"a", b"b", b"c"]


def test_read_ahead_left_early_ends_its_thread() -> None:
    made = 0

    def endless() -> Iterator[bytes]:
        nonlocal made
        while True:
            made += 1
            yield os.urandom(8)

    before = threading.active_count()
    with ReadAhead(endless(), ahead=3) as ahead:
        next(iter(ahead))
    assert threading.active_count() == before
    assert made < 10
