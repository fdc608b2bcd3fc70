"""The supervisor as the parent of everybody: who reaps whom, and whose exit status is told to whom."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import pytest

from nodeagent.up import supervisor as module
from nodeagent.up.node import RunningNode, Trouble
from nodeagent.up.places import Places
from nodeagent.up.service import Service
from nodeagent.up.show import Show
from nodeagent.up.supervisor import Supervisor

ROOT = Path(__file__).parents[3]
SPEAKS = "import time; from runtime.linux.notify import notify; notify('READY=1'); time.sleep(100)"


class Shell:
    """Places whose crid is a shell script."""

    def crid(self, *verb: str) -> list[str]:
        return ["sh", "-c", verb[0]]


@pytest.fixture
async def supervisor(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Supervisor]:
    # The process that runs the tests stays no subreaper: it would inherit what other tests leave to init.
    monkeypatch.setattr(module, "become_subreaper", lambda: None)
    async with Supervisor(print) as made:
        yield made


def zombie_behind(first: int) -> int:
    """A child that nobody waits for, dead as the first one is."""
    orphan = os.posix_spawn("/bin/true", ["true"], {})
    for pid in (first, orphan):
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    return orphan


def is_reaped(pid: int) -> bool:
    try:
        return os.waitpid(pid, os.WNOHANG) is None
    except ChildProcessError:
        return True


async def test_a_verb_that_fails_is_told_as_such_though_its_end_was_heard_first(supervisor: Supervisor) -> None:
    node = RunningNode(cast(Places, Shell()), supervisor, Show())
    # What holds the pipe open lets SIGCHLD come long before the output is read to its end.
    with pytest.raises(Trouble, match="no such layer"):
        await node.crid_verb("echo no such layer >&2; sleep 0.3 & exit 3")
    assert await node.crid_verb("echo done; sleep 0.3 &") == "done"


async def test_a_verb_that_does_not_end_is_killed(supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nodeagent.up.node.VERB_TIMEOUT", 0.1)
    with pytest.raises(Trouble, match="'exec sleep 100' did not end within 0 s and was killed"):
        await RunningNode(cast(Places, Shell()), supervisor, Show()).crid_verb("exec sleep 100")


async def test_orphans_are_reaped_behind_a_daemon_that_died(
    supervisor: Supervisor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    daemon = Service("daemon", [sys.executable, "-c", SPEAKS], tmp_path / "daemon.log", print)
    await supervisor.start(daemon)
    process = daemon.child
    assert process is not None
    process.kill()
    orphan = zombie_behind(process.pid)
    supervisor._reap()
    assert is_reaped(orphan)
    assert process.returncode == -signal.SIGKILL
    assert daemon.child is None
