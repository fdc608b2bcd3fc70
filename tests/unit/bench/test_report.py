"""The arithmetic of the bench, and what it takes for a runtime's processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bench import machine
from tests.bench.report import Row, cell, percentile, table


@pytest.mark.parametrize(("percent", "value"), [(50, 50), (90, 90), (99, 99), (100, 100), (1, 1), (0, 1)])
def test_percentiles_are_samples(percent: int, value: int) -> None:
    assert percentile(range(1, 101), percent) == value
    assert percentile([7.0], percent) == 7.0


def test_cells_have_three_digits_and_no_percentiles_of_few_samples() -> None:
    assert cell([0.1234] * 5, "ms") == "123 / 123 / 123"
    assert cell([0.01234, 0.01235], "ms") == "12.3"
    assert cell([1_234_567.0], "MB") == "1.23"
    assert cell([], "s") == "-"


def test_ratios_say_how_many_times_better_the_first_one_is() -> None:
    rows = [Row("time", "a time", "ms"), Row("rate", "a rate", "/s"), Row("none", "not measured", "s")]
    text = table(rows, {"ours": {"time": [0.010], "rate": [60.0]}, "theirs": {"time": [0.150], "rate": [12.0]}})
    assert text.splitlines() == [
        "|  | unit | ours | theirs | times better |",
        "| --- | --- | ---: | ---: | ---: |",
        "| a time | ms | 10.0 | 150 | 15.0 |",
        "| a rate | /s | 60.0 | 12.0 | 5.0 |",
    ]


MARK = "1234567890"
SHIM = f"""\
import subprocess, sys, time
print(subprocess.Popen(["sleep", "{MARK}"]).pid, flush=True)
time.sleep(60)
"""
STARTER = """\
import subprocess, sys
shim = subprocess.Popen([sys.executable, sys.argv[1]], stdout=subprocess.PIPE, text=True)
print(shim.pid, shim.stdout.readline())
"""


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[tuple[int, int, int]]:
    """A "daemon"; beside it, orphaned, a "shim" with a marked "container" below."""
    script = tmp_path / "shim.py"
    script.write_text(SHIM)
    started = subprocess.run(
        [sys.executable, "-c", STARTER, script], stdout=subprocess.PIPE, text=True, check=True, timeout=20
    )
    shim, container = map(int, started.stdout.split())
    daemon = subprocess.Popen(["sleep", "60"])
    yield daemon.pid, shim, container
    for pid in (container, shim):
        os.kill(pid, signal.SIGKILL)
    daemon.kill()
    daemon.wait(10)


def test_a_runtime_is_its_daemon_and_what_stands_above_its_containers(tree: tuple[int, int, int]) -> None:
    daemon, shim, container = tree
    found = machine.runtime_processes(daemon, MARK)
    assert {daemon, shim} <= found
    assert container not in found
    assert os.getpid() not in found
    assert 1 not in found


def test_memory_and_time_of_processes() -> None:
    assert machine.proportional_set_size([os.getpid(), 1 << 30]) > 1 << 20
    before = machine.cpu_seconds([os.getpid()])
    until = time.process_time() + 0.05
    while time.process_time() < until:
        pass
    assert machine.cpu_seconds([os.getpid()]) - before >= 0.04
