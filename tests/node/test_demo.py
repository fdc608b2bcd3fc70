"""README's first command as a user meets it: the demo runs, answers, can be looked into, and leaves nothing."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import leftovers

BIN = Path(sys.executable).parent
PATIENCE_S = 120.0


class Demo:
    """`nodeagent up --demo` in a directory of its own."""

    def __init__(self, directory: Path) -> None:
        self.log = directory / "said"
        with self.log.open("wb") as said:
            self.process = subprocess.Popen(
                [BIN / "nodeagent", "up", "--demo", "--demo-dir", directory / "demo"], stdout=said, stderr=said
            )

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_for(self, pattern: str) -> re.Match[str]:
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            if found := re.search(pattern, self.said()):
                return found
            assert self.process.poll() is None, f"the demo ended with {self.process.returncode}:\n{self.said()}"
            time.sleep(0.1)
        raise AssertionError(f"no {pattern!r} within {PATIENCE_S:g} s:\n{self.said()}")

    def end(self, number: int) -> int:
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_S)


@pytest.fixture
def demo() -> Iterator[Demo]:
    before = leftovers.snapshot()
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="na-") as directory:
        demo = Demo(Path(directory))
        try:
            yield demo
        finally:
            if demo.process.poll() is None:
                demo.end(signal.SIGTERM)
    kinds = ("link", "nft table", "mount")
    left = [line for line in leftovers.left_behind(before) if line.startswith(kinds)]
    assert not [line for line in left if "demo" in line]


def nodectl(state: str, *words: str) -> str:
    done = subprocess.run(
        [BIN / "nodectl", *words],
        env={**os.environ, "NODEAGENT_STATE": state},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, f"nodectl {' '.join(words)}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.mark.timeout(600)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_demo_answers_and_leaves_nothing(demo: Demo, number: int) -> None:
    url = demo.wait_for(r"runs: .* at (http://\S+)")[1]
    state = demo.wait_for(r"NODEAGENT_STATE=(\S+)")[1]
    with urllib.request.urlopen(url, timeout=20) as answer:
        assert b"Hello from pod demo" in answer.read()
    [pod] = json.loads(nodectl(state, "pods", "-o", "json"))["items"]
    assert pod["name"] == "demo"
    assert nodectl(state, "exec", "demo", "-c", "clock", "--", "hostname") == "demo\n"
    assert "response:200" in nodectl(state, "logs", "demo", "-c", "web")
    assert "clean" in nodectl(state, "fsck")
    assert demo.end(number) == 0
    assert "left nothing behind" in demo.said()
    assert not Path(state).exists()
