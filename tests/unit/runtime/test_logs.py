"""The CRI log format, chunk by chunk."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from runtime import logs
from runtime.logs import LINE_MAX, LogFile, LogStream

STAMP = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z ")


@pytest.fixture
def log(tmp_path: Path) -> LogFile:
    return LogFile(str(tmp_path / "log"))


def records(tmp_path: Path) -> list[bytes]:
    """The file's lines without their times."""
    return [STAMP.sub(b"", line, count=1) for line in (tmp_path / "log").read_bytes().split(b"\n")[:-1]]


@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        ([b"a\nb\n"], [b"stdout F a", b"stdout F b"]),
        ([b"a", b"b\n"], [b"stdout F ab"]),
        ([b"a\nb", b"c\n"], [b"stdout F a", b"stdout F bc"]),
        ([b"\n\n"], [b"stdout F ", b"stdout F "]),
        ([b"a\r\n"], [b"stdout F a\r"]),
        ([b"end"], [b"stdout F end"]),
        ([b"\xff\x00\n"], [b"stdout F \xff\x00"]),
        ([], []),
    ],
)
def test_lines(log: LogFile, tmp_path: Path, chunks: list[bytes], expected: list[bytes]) -> None:
    stream = LogStream(log, "stdout")
    for chunk in chunks:
        stream.feed(chunk)
    stream.finish()
    assert records(tmp_path) == expected


@pytest.mark.parametrize("size", [LINE_MAX - 1, LINE_MAX, LINE_MAX + 1, 2 * LINE_MAX, 3 * LINE_MAX + 5])
@pytest.mark.parametrize("chunk", [1000, LINE_MAX, 65536])
@pytest.mark.parametrize("neighbours", [b"", b"short\n"])
def test_long_lines(log: LogFile, tmp_path: Path, size: int, chunk: int, neighbours: bytes) -> None:
    data = neighbours + b"x" * size + b"\n" + neighbours
    stream = LogStream(log, "stderr")
    for at in range(0, len(data), chunk):
        stream.feed(data[at : at + chunk])
    found = records(tmp_path)
    whole = b"".join(line[9:] + (b"\n" if line[7:8] == b"F" else b"") for line in found)
    assert whole == data
    assert all(len(line[9:]) <= LINE_MAX and line.startswith((b"stderr P ", b"stderr F ")) for line in found)
    assert sum(line[7:8] == b"P" for line in found) == (size - 1) // LINE_MAX


def test_an_unfinished_line_waits_for_its_end(log: LogFile, tmp_path: Path) -> None:
    stream = LogStream(log, "stdout")
    stream.feed(b"half")
    assert records(tmp_path) == []
    stream.feed(b" whole\n")
    assert records(tmp_path) == [b"stdout F half whole"]


def test_two_streams_do_not_mix_their_lines(log: LogFile, tmp_path: Path) -> None:
    out, err = LogStream(log, "stdout"), LogStream(log, "stderr")
    out.feed(b"o1")
    err.feed(b"e1\n")
    out.feed(b"o2\n")
    assert records(tmp_path) == [b"stderr F e1", b"stdout F o1o2"]


def test_time_has_nanoseconds_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    times = [1_700_000_000_000_000_001, 1_700_000_000_999_999_999, 1_700_000_001_000_000_000]
    monkeypatch.setattr("time.time_ns", lambda: times.pop(0))
    assert [logs.timestamp() for _ in range(3)] == [
        b"2023-11-14T22:13:20.000000001Z",
        b"2023-11-14T22:13:20.999999999Z",
        b"2023-11-14T22:13:21.000000000Z",
    ]


def test_no_path_discards(tmp_path: Path) -> None:
    stream = LogStream(LogFile(""), "stdout")
    stream.feed(b"nobody reads this\n")
    stream.finish()
    assert not list(tmp_path.iterdir())


def test_a_failed_reopen_keeps_the_old_file(log: LogFile, tmp_path: Path) -> None:
    stream = LogStream(log, "stdout")
    (tmp_path / "log").rename(tmp_path / "moved")
    (tmp_path / "log").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError):  # links are not followed: whoever can write there could choose the file
        log.reopen()
    stream.feed(b"still\n")
    assert b"still" in (tmp_path / "moved").read_bytes()
    assert not (tmp_path / "elsewhere").exists()


def test_a_failing_disk_is_counted(log: LogFile, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.write", full)
    log.write(b"12345\n")
    assert (log.lost, log.why) == (6, "No space left on device")


def test_a_torn_line_is_not_continued(log: LogFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    write = os.write
    monkeypatch.setattr("os.write", lambda fd, data: write(fd, data[:3]))
    log.write(b"first\n")
    monkeypatch.undo()
    log.write(b"second\n")
    assert (tmp_path / "log").read_bytes() == b"fir\nsecond\n"
    assert log.lost == 3
