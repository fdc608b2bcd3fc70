"""Reading and following logs in files that change under the reader."""

from __future__ import annotations

import asyncio
import gzip
import os
import sys
from pathlib import Path

import pytest

from nodeagent.ctl.logs_verb import printer
from nodeagent.logs.follow import follow
from nodeagent.logs.lines import Line, nanoseconds
from nodeagent.logs.past import read_log
from nodeagent.logs.reader import read_lines, seek_to_tail

TIME = "2030-01-01T00:00:00.000000001Z"


def lines(*texts: str) -> str:
    return "".join(f"{TIME} stdout F {text}\n" for text in texts)


@pytest.mark.parametrize("count", [0, 1, 3, 4999, 5000, 9000])
def test_the_last_lines_of_a_long_file(tmp_path: Path, count: int) -> None:
    numbers = [str(number) for number in range(5000)]
    path = tmp_path / "log"
    path.write_text(lines(*numbers))
    with path.open("rb") as file:
        assert seek_to_tail(file, count) == min(count, 5000)
        found = [line.content.decode().strip() for line in read_lines(file)]
    assert found == (numbers[-count:] if count else [])


def test_a_line_that_is_being_written_is_left_for_later(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text(lines("one") + f"{TIME} stdout F tw")
    with path.open("rb") as file:
        assert [line.content for line in read_lines(file)] == [b"one\n"]
        with path.open("a") as writer:
            writer.write("o\n")
        assert [line.content for line in read_lines(file)] == [b"two\n"]


async def test_following_over_a_rotation_to_the_end(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text(lines("one"))
    alive, found = True, []

    async def running() -> bool:
        return alive

    async def read() -> None:
        async for line in follow(path, running, print):
            found.append(line.content.decode().strip())

    reading = asyncio.create_task(read())
    await asyncio.sleep(0.2)
    path.rename(tmp_path / "log.1")
    with (tmp_path / "log.1").open("a") as old:
        old.write(lines("two"))
    path.write_text(lines("three"))
    await asyncio.sleep(0.2)
    assert found == ["one", "two", "three"]
    with path.open("a") as writer:
        writer.write(lines("last"))
    alive = False
    await asyncio.wait_for(reading, 5)
    assert found == ["one", "two", "three", "last"]


async def test_another_log_in_the_directory_keeps_nobody_waiting(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text(lines("one"))

    async def ended() -> bool:
        return False

    async def chatter() -> None:
        while True:
            (tmp_path / "other").write_text("x")
            await asyncio.sleep(0.05)

    talking = asyncio.create_task(chatter())
    try:
        async with asyncio.timeout(5):
            assert [line.content async for line in follow(path, ended, print)] == [b"one\n"]
    finally:
        talking.cancel()


def test_times_stand_before_lines_and_not_before_their_parts(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    show = printer(True, 0)
    show(Line(b"T1", b"stdout", b"a long "))
    show(Line(b"T2", b"stdout", b"line\n"))
    show(Line(b"T3", b"stderr", b"short\n"))
    sys.stdout.flush()
    assert capfdbinary.readouterr().out == b"T1 a long line\nT3 short\n"


def rotated_log(directory: Path) -> Path:
    """Three lines in each of: a compressed file, one that is being compressed, the one being written."""
    path = directory / "0.log"
    (directory / "0.log.20300101-000000.gz").write_bytes(gzip.compress(lines("1", "2", "3").encode()))
    (directory / "0.log.20300101-000010").write_text(lines("4", "5", "6"))
    (directory / "0.log.20300101-000010.gz").write_bytes(b"in the making")
    path.write_text(lines("7", "8", "9"))
    return path


def content(path: Path, tail: int | None = None, since: int = 0) -> tuple[str, list[str]]:
    """The lines in one word, and what was told."""
    told: list[str] = []
    with path.open("rb") as newest:
        found = [line.content.decode().strip() for line in read_log(path, newest, told.append, tail, since)]
    return "".join(found), told


@pytest.mark.parametrize(
    ("tail", "found"),
    [
        (None, "123456789"),
        (0, ""),
        (2, "89"),
        (3, "789"),
        (5, "56789"),
        (8, "23456789"),
        (9, "123456789"),
        (99, "123456789"),
    ],
)
def test_rotated_files_are_part_of_the_log(tmp_path: Path, tail: int | None, found: str) -> None:
    assert content(rotated_log(tmp_path), tail) == (found, [])


def test_a_file_that_ended_before_is_not_read(tmp_path: Path) -> None:
    path = rotated_log(tmp_path)
    os.utime(tmp_path / "0.log.20300101-000000.gz", ns=(0, 5 * 10**9))
    assert content(path, since=6 * 10**9) == ("456789", [])


@pytest.mark.parametrize("tail", [None, 8])
def test_a_damaged_file_is_told_and_hides_no_other(tmp_path: Path, tail: int | None) -> None:
    path = rotated_log(tmp_path)
    damaged = tmp_path / "0.log.20300101-000000.gz"
    damaged.write_bytes(damaged.read_bytes()[:-9])
    found, [told] = content(path, tail)
    assert found.endswith("456789")
    assert told.startswith(f"{damaged} is damaged")


def test_a_rotation_after_the_log_was_opened_doubles_nothing(tmp_path: Path) -> None:
    path = rotated_log(tmp_path)
    with path.open("rb") as newest:
        path.rename(tmp_path / "0.log.20300101-000020")
        path.write_text(lines("x"))
        assert len(list(read_log(path, newest, print))) == 9


@pytest.mark.parametrize("compressed", [False, True])
async def test_a_slow_follower_misses_no_rotation(tmp_path: Path, compressed: bool) -> None:
    path = rotated_log(tmp_path)

    async def ended() -> bool:
        return False

    following = follow(path, ended, print, tail=4)
    found = [(await anext(following)).content.decode().strip()]
    own, later = (tmp_path / f"0.log.20300101-0000{second}" for second in (20, 30))
    path.rename(own)
    own.write_text(own.read_text() + lines("a"))
    later.write_text(lines("b", "c").replace(TIME, TIME.replace("001Z", "002Z")))
    if compressed:
        for each in (own, later):
            each.with_name(each.name + ".gz").write_bytes(gzip.compress(each.read_bytes()))
            each.unlink()
    path.write_text(lines("d"))
    async with asyncio.timeout(5):
        found += [line.content.decode().strip() async for line in following]
    assert "".join(found) == "6789abcd"


def test_times_of_lines_are_exact() -> None:
    assert nanoseconds(TIME) % 10**9 == 1
    assert nanoseconds("2030-01-01T01:00:00.5+01:00") == nanoseconds("2030-01-01T00:00:00Z") + 5 * 10**8
    assert nanoseconds("yesterday") == 0
