"""The tar reader against archives that GNU tar and the standard library wrote, and against damaged ones."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from images.errors import ImageError, MalformedImage, TooLarge
from images.limits import Limits
from images.tar.header import BLOCK, Entry
from images.tar.reader import TarReader
from images.tar.stream import ByteStream


def chunks(data: bytes, size: int) -> Iterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


def read(data: bytes, chunk: int = 1000, limits: Limits | None = None) -> list[tuple[Entry, bytes]]:
    reader = TarReader(ByteStream(chunks(data, chunk)), limits or Limits())
    return [(entry, b"".join(reader.data())) for entry in reader]


def archive(*members: tarfile.TarInfo, format: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format) as tar:
        for member in members:
            tar.addfile(member, io.BytesIO(b"x" * member.size))
    return out.getvalue()


def member(name: str, **fields: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    for key, value in fields.items():
        setattr(info, key, value)
    return info


@pytest.mark.parametrize("chunk", [1, 511, 512, 513, 1 << 20])
@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_of_every_format(format: int, chunk: int) -> None:
    long = "/".join(["directory" * 5] * 5 + ["name"]) if format != tarfile.USTAR_FORMAT else "d" * 90 + "/" + "n" * 90
    data = archive(
        member("file", size=1025, mode=0o4755, uid=1000, gid=2000, mtime=1234567890),
        member(long, size=3, linkname=""),
        member("dir/", type=tarfile.DIRTYPE, mode=0o1777),
        member("link", type=tarfile.SYMTYPE, linkname="target" * 12),
        member("hard", type=tarfile.LNKTYPE, linkname="file", size=0),
        member("null", type=tarfile.CHRTYPE, devmajor=1, devminor=3),
        member("fifo", type=tarfile.FIFOTYPE),
        member("empty"),
        format=format,
    )
    found = read(data, chunk)
    assert [(e.name.decode().rstrip("/"), e.type) for e, _ in found] == [
        ("file", b"0"),
        (long, b"0"),
        ("dir", b"5"),
        ("link", b"2"),
        ("hard", b"1"),
        ("null", b"3"),
        ("fifo", b"6"),
        ("empty", b"0"),
    ]
    file, content = found[0]
    assert (file.mode, file.uid, file.gid, file.mtime_ns) == (0o4755, 1000, 2000, 1234567890 * 10**9)
    assert content == b"x" * 1025
    assert (found[3][0].linkname, found[4][0].linkname) == (b"target" * 12, b"file")
    assert (found[5][0].devmajor, found[5][0].devminor) == (1, 3)


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_numbers_that_octal_digits_cannot_hold(format: int) -> None:
    ((entry, _),) = read(archive(member("x", uid=3_000_000_000, gid=2**31, mtime=2**35), format=format))
    assert (entry.uid, entry.gid, entry.mtime_ns) == (3_000_000_000, 2**31, 2**35 * 10**9)


def test_pax_times_and_attributes_are_exact() -> None:
    headers = {
        "mtime": "1700000000.123456789",
        "SCHILY.xattr.user.a": "b=c\nd",
        "SCHILY.xattr.security.capability": "x",
        "comment": "ignored",
    }
    ((entry, _),) = read(archive(member("x", pax_headers=headers)))
    assert entry.mtime_ns == 1700000000_123456789
    assert entry.xattrs == {"user.a": b"b=c\nd", "security.capability": b"x"}


def test_times_before_the_epoch() -> None:
    ((entry, _),) = read(archive(member("x", pax_headers={"mtime": "-1.5"})))
    assert entry.mtime_ns == -1_500_000_000


def test_global_headers_say_nothing_about_files() -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT, pax_headers={"comment": "c", "uid": "5"}) as t:
        t.addfile(member("x"))
    ((entry, _),) = read(out.getvalue())
    assert (entry.name, entry.uid) == (b"x", 0)


def test_members_that_are_not_read_are_passed_over() -> None:
    reader = TarReader(ByteStream(chunks(archive(member("a", size=5000), member("b", size=1)), 700)), Limits())
    assert [entry.name for entry in reader] == [b"a", b"b"]


def test_the_end_may_be_missing_and_what_follows_it_is_not_read() -> None:
    data = archive(member("a", size=1))
    assert len(read(data[: 2 * BLOCK])) == 1
    assert len(read(data[: 3 * BLOCK])) == 1
    assert len(read(data[: BLOCK + 1])) == 1  # not even padded
    assert len(read(data + archive(member("b")))) == 1
    assert read(b"") == []


@pytest.mark.parametrize(
    "options", [["--format=gnu"], *(["--format=pax", f"--sparse-version={v}"] for v in (0.0, 0.1, 1.0))]
)
@pytest.mark.parametrize("holes", [1, 60])
def test_sparse_files_of_gnu_tar(tmp_path: Path, options: list[str], holes: int) -> None:
    """60 pieces: more than a header block, or one extension block, can list."""
    with (tmp_path / "sparse").open("wb") as file:
        for number in range(holes):
            file.seek(number * 65536 + 8192)
            file.write(b"%04d" % number * 1024)
        file.truncate(holes * 65536 + 100_000)
    (tmp_path / "after").write_bytes(b"after")
    done = subprocess.run(
        ["tar", "--sparse", *options, "-cf", "-", "sparse", "after"], cwd=tmp_path, capture_output=True, check=True
    )
    (sparse, stored), (after, content) = read(done.stdout)
    assert (sparse.name, sparse.type, after.name, content) == (b"sparse", b"0", b"after", b"after")
    assert sparse.segments is not None
    assert len(stored) < holes * 8192
    whole = bytearray(sparse.sparse_size)
    for offset, length in sparse.segments:
        whole[offset : offset + length], stored = stored[:length], stored[length:]
    assert bytes(whole) == (tmp_path / "sparse").read_bytes()


def with_checksum(block: bytes) -> bytes:
    total = sum(block[:148]) + 8 * 32 + sum(block[156:])
    return block[:148] + b"%06o\0 " % total + block[156:]


def patched(data: bytes, at: int, value: bytes) -> bytes:
    """The archive with some bytes of its first header replaced, and the checksum made right again."""
    return with_checksum(data[:at] + value + data[at + len(value) : BLOCK]) + data[BLOCK:]


PLAIN = archive(member("name", size=5), format=tarfile.USTAR_FORMAT)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"\x01" * BLOCK, "checksum|number"),
        (os.urandom(4096), "checksum|number"),
        (PLAIN[:100] + b"\x7f" + PLAIN[101:], "checksum"),
        (PLAIN[:300], "too early"),
        (PLAIN[: BLOCK + 2], "too early"),
        (patched(PLAIN, 124, b"-0000000001\0"), "impossible size"),
        (patched(PLAIN, 124, b"\xff" * 12), "impossible size"),
        (patched(PLAIN, 124, b"zzzzzzzzzzz\0"), "number"),
        (patched(PLAIN, 108, b"\x80\x00\x00\x00\xff\xff\xff\xff"), "owner"),
        (patched(PLAIN, 136, b"\x80\x00\x7f" + b"\xff" * 9), "time"),
    ],
)
def test_damaged_headers(data: bytes, says: str) -> None:
    with pytest.raises(MalformedImage, match=says):
        read(data)


def preface(kind: bytes, body: bytes) -> bytes:
    header = patched(archive(member("././@Long"), format=tarfile.USTAR_FORMAT)[:BLOCK], 156, kind)
    return patched(header, 124, b"%011o\0" % len(body)) + body + b"\0" * (-len(body) % BLOCK)


def pax_record(key: bytes, value: bytes) -> bytes:
    for length in range(len(key) + len(value) + 3, len(key) + len(value) + 12):
        record = b"%d %s=%s\n" % (length, key, value)
        if len(record) == length:
            return record
    raise AssertionError("no length fits")


@pytest.mark.parametrize(
    "body",
    [
        b"5 a=b",
        b"99 a=b\n",
        b"x a=b\n",
        b"3 a\n",
        b"0 a=b\n",
        b"-6 a=b\n",
        b"999999999999999999999 a=b\n",
        pax_record(b"path", b"a\0b"),
        pax_record(b"size", b"-1"),
        pax_record(b"size", b"1" * 30),
        pax_record(b"uid", b"4294967295"),
        pax_record(b"mtime", b"never"),
        pax_record(b"SCHILY.xattr.user.a\0", b"x"),
        pax_record(b"GNU.sparse.size", b"10") + pax_record(b"GNU.sparse.map", b"0,99"),
        pax_record(b"GNU.sparse.size", b"10") + pax_record(b"GNU.sparse.map", b"4,3,5,2"),
        pax_record(b"GNU.sparse.size", b"3") + pax_record(b"GNU.sparse.map", b"0,5"),
        pax_record(b"GNU.sparse.size", b"10") + pax_record(b"GNU.sparse.map", b"5"),
        pax_record(b"GNU.sparse.size", b"x"),
        pax_record(b"GNU.sparse.major", b"1") + pax_record(b"GNU.sparse.realsize", b"9"),
    ],
)
def test_damaged_pax_records(body: bytes) -> None:
    with pytest.raises(MalformedImage):
        read(preface(b"x", body) + PLAIN)


def test_extended_headers_without_end() -> None:
    with pytest.raises(MalformedImage, match="without end"):
        read(preface(b"L", b"name") * 20 + PLAIN)
    with pytest.raises(MalformedImage, match="ends after"):
        read(preface(b"x", pax_record(b"path", b"a")))


@pytest.mark.parametrize(
    ("data", "limits"),
    [
        (preface(b"x", pax_record(b"comment", b"c" * 5000)) + PLAIN, Limits(pax_header=4096)),
        (preface(b"L", b"n" * 5000) + PLAIN, Limits(pax_header=4096)),
        (
            preface(b"x", pax_record(b"GNU.sparse.size", b"999999") + pax_record(b"GNU.sparse.map", b"0,5")) + PLAIN,
            Limits(unpacked=1000),
        ),
        (
            preface(b"x", pax_record(b"GNU.sparse.size", b"9") + pax_record(b"GNU.sparse.map", b"0,1,2,1,4,3")) + PLAIN,
            Limits(sparse_segments=2),
        ),
    ],
)
def test_limits(data: bytes, limits: Limits) -> None:
    with pytest.raises(TooLarge):
        read(data, limits=limits)


def test_any_single_damaged_byte_is_an_image_error_or_no_error() -> None:
    """Nothing but ImageError comes out of a reader that is fed garbage."""
    original = archive(member("dir/name", size=600, pax_headers={"mtime": "1.5"}), member("l", type=b"2", linkname="t"))
    for at in range(0, len(original), 7):
        data = bytearray(original)
        data[at] ^= 0xFF
        try:
            read(bytes(data))
        except ImageError:
            continue
