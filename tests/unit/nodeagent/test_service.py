"""The supervisor's view of one daemon: whose word it takes for being ready."""

from __future__ import annotations

import asyncio
import socket
import sys
from pathlib import Path

import pytest

from nodeagent.up import service
from nodeagent.up.service import Service, StartFailed

SPEAKS = "import time; from runtime.linux.notify import notify; notify('READY=1'); time.sleep(100)"
#: Ready and gone; gone before it is ready; ready, and there to stay.
SECOND_START_FAILS = (
    "import sys, time; from pathlib import Path; from runtime.linux.notify import notify; starts = Path(sys.argv[1]);"
    "done = len(starts.read_text()) if starts.exists() else 0; starts.write_text('x' * (done + 1));"
    "done == 1 or notify('READY=1'); time.sleep(100 if done > 1 else 0); sys.exit(3)"
)
ROOT = Path(__file__).parents[3]


def shout(name: str) -> None:
    """What a container on the host's network can do: it sees the name, and needs no path to connect."""
    lines = Path("/proc/net/unix").read_text().splitlines()
    [address] = {line.split()[-1] for line in lines if f"-{name}-" in line}
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stranger:
        stranger.connect("\0" + address[1:])
        stranger.send(b"READY=1")


async def test_the_last_words_are_those_of_this_start(tmp_path: Path) -> None:
    log = tmp_path / "brief.log"
    log.write_text("words of another\n")
    brief = Service("brief", ["sh", "-c", "echo no such bridge >&2; exit 1"], log, print)
    with pytest.raises(StartFailed) as ended:
        await brief.start()
    assert str(ended.value) == f"brief ended; its last words, from {log}:\nno such bridge"
    assert log.read_text().startswith("words of another\n")


async def test_a_daemon_speaks_for_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    silent = Service("silent", ["sleep", "100"], tmp_path / "silent.log", print)
    starting = asyncio.create_task(silent.start(patience=1.0))
    await asyncio.sleep(0.2)
    shout("silent")
    with pytest.raises(StartFailed, match="was not ready"):
        await starting
    speaking = Service("speaking", [sys.executable, "-c", SPEAKS], tmp_path / "speaking.log", print)
    await speaking.start()
    await speaking.stop()


async def test_a_daemon_whose_program_is_away_for_a_moment_is_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr(service, "PAUSES", (0.01,))
    program = tmp_path / "program"
    program.write_text(f"#!{sys.executable}\n{SPEAKS}\n")
    program.chmod(0o755)
    missing, back = asyncio.Event(), asyncio.Event()

    def told(words: str) -> None:
        if "cannot be started ([Errno 2]" in words:
            missing.set()
        if words == "away is back":
            back.set()

    away = Service("away", [str(program)], tmp_path / "away.log", told)
    await away.start()
    assert away.child is not None
    program.rename(tmp_path / "updated")
    away.child.kill()
    async with asyncio.timeout(10):
        await missing.wait()
        (tmp_path / "updated").rename(program)
        await back.wait()
    await away.stop()


async def test_a_daemon_that_dies_before_it_is_back_is_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr(service, "PAUSES", (0.01, 0.02, 0.03))
    said: list[str] = []
    back = asyncio.Event()

    def told(words: str) -> None:
        said.append(words)
        if words == "frail is back":
            back.set()

    command = [sys.executable, "-c", SECOND_START_FAILS, str(tmp_path / "starts")]
    frail = Service("frail", command, tmp_path / "frail.log", told)
    await frail.start()
    async with asyncio.timeout(10):
        await back.wait()
    await frail.stop()
    ended = "frail ended with status 3; pods go on; again in"
    assert said == [f"{ended} 0.01 s", f"{ended} 0.02 s", "frail is back"]
