"""The content store: nothing gets a blob's name without being it, and what is left of a download is judged."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from images.blobs import BlobReader, Growth
from images.content import KEEP_SECONDS, ContentStore
from images.digest import Digest
from images.documents import Descriptor
from images.errors import DigestMismatch, ImageNotFound
from runtime.linux.database import open_database
from runtime.linux.ledger import Ledger

DATA = bytes(range(256)) * 100
BLOB = Descriptor("", Digest.of(DATA), len(DATA))


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "node.db", "crid")


@pytest.fixture
def content(tmp_path: Path, ledger: Ledger) -> ContentStore:
    return ContentStore(tmp_path / "content", ledger)


def ingest_files(tmp_path: Path) -> list[bytes]:
    return [path.read_bytes() for path in (tmp_path / "content/ingest").iterdir()]


def test_a_blob_gets_its_name_when_it_is_whole(content: ContentStore, ledger: Ledger) -> None:
    growth = Growth()
    with content.ingest(BLOB, growth) as ingest, BlobReader(growth) as reader:
        ingest.resume()
        for at in range(0, len(DATA), 1000):
            assert not content.has(BLOB)
            ingest.write(DATA[at : at + 1000])
        assert reader.head(4) == DATA[:4]
        ingest.commit()
        assert reader.read() == DATA
    assert content.has(BLOB)
    assert content.read(BLOB.digest, len(DATA)) == DATA
    assert content.path(BLOB.digest).stat().st_mode & 0o777 == 0o600
    assert ledger.entries() == []
    with pytest.raises(OSError, match="larger than the limit"):
        content.read(BLOB.digest, len(DATA) - 1)
    with pytest.raises(ImageNotFound):
        content.read(Digest.of(b"other"), 10)


@pytest.mark.parametrize("data", [DATA[:-1], DATA + b"x", DATA[:-1] + b"x", b""])
def test_anything_else_never_does(content: ContentStore, ledger: Ledger, tmp_path: Path, data: bytes) -> None:
    with content.ingest(BLOB, Growth()) as ingest, pytest.raises(DigestMismatch, match=BLOB.digest):
        ingest.resume()
        ingest.write(data)
        ingest.commit()
    assert not content.has(BLOB)
    assert not content.path(BLOB.digest).exists()
    content.discard(BLOB.digest)
    assert (ingest_files(tmp_path), ledger.entries()) == ([], [])


@pytest.mark.parametrize(
    ("left", "kept"),
    [(b"", 0), (DATA[:777], 777), (DATA, len(DATA)), (DATA[:-1] + b"x", 0), (DATA + b"x", 0)],
    ids=["nothing", "a part", "all", "all, damaged", "too much"],
)
def test_what_an_earlier_download_left(content: ContentStore, left: bytes, kept: int) -> None:
    with content.ingest(BLOB, Growth()):
        pass
    (next(content._ingest.iterdir())).write_bytes(left)
    growth = Growth()
    with content.ingest(BLOB, growth) as ingest:
        ingest.resume()
        assert ingest.offset == kept
        ingest.write(DATA[kept:])
        ingest.commit()
    assert content.read(BLOB.digest, len(DATA)) == DATA


def test_left_downloads_are_kept_for_a_day_and_not_across_a_reboot(
    content: ContentStore, ledger: Ledger, tmp_path: Path
) -> None:
    def leave() -> Path:
        with content.ingest(BLOB, Growth()) as ingest:
            ingest.write(DATA[:100])
        return next(content._ingest.iterdir())

    leave()
    content.recover()
    assert ingest_files(tmp_path) == [DATA[:100]]
    os.utime(leave(), (0, time.time() - KEEP_SECONDS - 60))
    content.recover()
    assert (ingest_files(tmp_path), ledger.entries()) == ([], [])
    leave()
    database = open_database(tmp_path / "node.db")
    database.write("UPDATE ledger SET boot_id = ?", [("earlier",)])
    database.close()
    content.recover()
    assert (ingest_files(tmp_path), ledger.entries()) == ([], [])


def test_blobs_are_found_again_beside_what_is_none(content: ContentStore, ledger: Ledger, tmp_path: Path) -> None:
    with content.ingest(BLOB, Growth()) as ingest:
        ingest.write(DATA)
        ingest.commit()
    content.path(BLOB.digest).with_suffix(".orig").write_bytes(b"somebody's")
    again = ContentStore(tmp_path / "content", ledger)
    assert not again.has(BLOB)
    again.recover()
    assert again.sizes == {BLOB.digest: len(DATA)}
