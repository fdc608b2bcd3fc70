"""Failpoints: parsing, counting, and the three actions."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from runtime.linux import failpoints

CROSS = "from runtime.linux.failpoints import failpoint; failpoint('a.b'); print('passed')"


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    yield
    failpoints.arm("")


def test_unarmed_is_silent() -> None:
    failpoints.failpoint("anything")


def test_error_acts_at_every_arrival() -> None:
    failpoints.arm("x.y=error")
    for _ in range(2):
        with pytest.raises(failpoints.FailpointError, match=r"x\.y"):
            failpoints.failpoint("x.y")
    failpoints.failpoint("x.z")


def test_a_count_acts_at_that_arrival_only() -> None:
    failpoints.arm("x.y=error@2, other=hang")
    failpoints.failpoint("x.y")
    with pytest.raises(failpoints.FailpointError):
        failpoints.failpoint("x.y")
    failpoints.failpoint("x.y")


def test_hang_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr("time.sleep", slept.append)
    failpoints.arm("x=hang")
    failpoints.failpoint("x")
    assert slept == [failpoints.HANG_SECONDS]


def test_kill_is_sigkill_in_a_process_armed_by_its_environment() -> None:
    run = subprocess.run(
        [sys.executable, "-c", CROSS], env={failpoints.VARIABLE: "a.b=kill"}, capture_output=True, timeout=20
    )
    assert run.returncode == -signal.SIGKILL
    assert run.stdout == b""


@pytest.mark.parametrize("text", ["x", "x=explode", "=kill", "x=kill@", "x=kill@0", "x=kill@two"])
def test_a_misspelt_entry_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="NODEAGENT_FAILPOINTS"):
        failpoints.arm(text)
