"""Reading and following logs in files that change under the reader."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from nodeagent.ctl.logs_verb import printer
from nodeagent.logs.lines import Line
from nodeagent.logs.reader import follow, read_lines, seek_to_tail

TIME = "2030-01-01T00:00:00.000000001Z"


def lines(*texts: str) -> str:
    return "".join(f"{TIME} stdout F {text}\n" for text in texts)


@pytest.mark.parametrize("count", [0, 1, 3, 4999, 5000, 9000])
def test_the_last_lines_of_a_long_file(tmp_path: Path, count: int) -> None:
    numbers = [str(number) for number in range(5000)]
    path = tmp_path / "log"
    path.write_text(lines(*numbers))
    with path.open("rb") as file:
        seek_to_tail(file, count)
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
        async for line in follow(path, running):
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
            assert [line.content async for line in follow(path, ended)] == [b"one\n"]
    finally:
        talking.cancel()


def test_times_stand_before_lines_and_not_before_their_parts(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    show = printer(True, 0)
    show(Line(b"T1", b"stdout", b"a long "))
    show(Line(b"T2", b"stdout", b"line\n"))
    show(Line(b"T3", b"stderr", b"short\n"))
    sys.stdout.flush()
    assert capfdbinary.readouterr().out == b"T1 a long line\nT3 short\n"
