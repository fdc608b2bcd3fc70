"""Process identity, and commands under a deadline."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runtime.linux.commands import CommandOutputTooLarge, CommandTimeout, mortal, run_command
from runtime.linux.procs import Process, pid_of


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    child = subprocess.Popen(["sleep", "60"])
    yield child
    child.kill()
    child.wait()


def test_a_process_is_alive_until_it_is_a_zombie(sleeper: subprocess.Popen[bytes]) -> None:
    process = Process.of(sleeper.pid)
    assert process.alive()
    assert process.signal(signal.SIGKILL)
    os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)
    assert not process.alive()
    sleeper.wait()
    assert not process.alive()
    assert not process.signal(signal.SIGKILL)


def test_the_same_pid_with_another_start_time_is_another_process(sleeper: subprocess.Popen[bytes]) -> None:
    impostor = Process(sleeper.pid, Process.of(sleeper.pid).start_time - 1)
    assert not impostor.alive()
    assert not impostor.signal(signal.SIGKILL)
    with pytest.raises(ProcessLookupError):
        impostor.pidfd()
    assert sleeper.poll() is None


def test_process_goes_through_json() -> None:
    current = Process.current()
    assert Process.from_json(current.to_json()) == current


def test_no_such_process() -> None:
    with pytest.raises(ProcessLookupError):
        Process.of(2**22 + 1)


def test_the_pid_behind_a_pidfd(sleeper: subprocess.Popen[bytes]) -> None:
    pidfd = os.pidfd_open(sleeper.pid)
    try:
        assert pid_of(pidfd) == sleeper.pid
        sleeper.kill()
        sleeper.wait()
        with pytest.raises(ProcessLookupError, match="is gone"):
            pid_of(pidfd)  # the kernel says -1 now, which /proc/<pid> must not be made of
    finally:
        os.close(pidfd)


def test_run_command_feeds_stdin_and_returns_both_streams() -> None:
    done = run_command(["sh", "-c", "cat; echo oops >&2; exit 3"], input=b"a" * 300_000, timeout=20, limit=1 << 20)
    assert (done.returncode, len(done.stdout), done.stderr) == (3, 300_000, b"oops\n")


def test_run_command_reports_a_signal_as_a_negative_status() -> None:
    assert run_command(["sh", "-c", "kill -TERM $$"], timeout=20, limit=100).returncode == -signal.SIGTERM


def test_a_command_that_ignores_its_input_is_no_error() -> None:
    assert run_command(["true"], input=b"x" * 1_000_000, timeout=20, limit=100).returncode == 0


def test_the_deadline_kills_the_whole_group() -> None:
    started = time.monotonic()
    with pytest.raises(CommandTimeout, match=r"sh: still running after 0\.3 s; its last words: slow") as caught:
        run_command(["sh", "-c", "echo $$; echo slow >&2; sleep 60 & wait"], timeout=0.3, limit=100)
    assert time.monotonic() - started < 10
    group = int(caught.value.stdout)
    for _ in range(200):
        if not _group_lives(group):
            return
        time.sleep(0.05)
    pytest.fail(f"process group {group} outlived the deadline")


def _group_lives(group: int) -> bool:
    """Whether a member still runs; zombies wait for an init that may be slow to reap."""
    for name in filter(str.isdecimal, os.listdir("/proc")):
        try:
            fields = Path(f"/proc/{name}/stat").read_bytes().rpartition(b")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[2]) == group and fields[0] not in (b"Z", b"X"):
            return True
    return False


def test_endless_output_is_cut_off() -> None:
    with pytest.raises(CommandOutputTooLarge, match="wrote more than 5000 bytes"):
        run_command(["yes"], timeout=20, limit=5000)


def test_a_grandchild_that_keeps_the_pipe_delays_nobody() -> None:
    done = run_command(["sh", "-c", "sleep 5 & echo $!"], timeout=20, limit=100)
    os.kill(int(done.stdout), signal.SIGKILL)
    assert done.returncode == 0


@pytest.mark.parametrize("call", ["pidfd_open", "set_blocking"])
def test_a_command_does_not_outlive_a_failure_of_ours(monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    children: list[subprocess.Popen[bytes]] = []

    class Popen(subprocess.Popen[bytes]):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            children.append(self)

    def refuse(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(subprocess, "Popen", Popen)
    monkeypatch.setattr(os, call, refuse)
    with pytest.raises(OSError, match="Too many open files"):
        run_command(["sleep", "60"], timeout=20, limit=100, input=b"x")
    (child,) = children
    assert child.returncode == -signal.SIGKILL
    assert all(stream and stream.closed for stream in (child.stdin, child.stdout, child.stderr))


def test_a_missing_command_is_an_oserror() -> None:
    with pytest.raises(FileNotFoundError):
        run_command(["/nonexistent/plugin"], timeout=1, limit=1)


def test_a_mortal_command_ends_with_who_started_it() -> None:
    script = (
        "import subprocess, sys; child = subprocess.Popen(sys.argv[1:], stdout=-1); child.stdout.readline();"
        "print(open(f'/proc/{child.pid}/stat').read().rpartition(')')[2].split()[19], child.pid)"
    )
    command = mortal(["sh", "-c", "echo up; exec sleep 60"])
    done = run_command([sys.executable, "-c", script, *command], timeout=20, limit=100)
    start_time, pid = map(int, done.stdout.split())
    deadline = time.monotonic() + 10
    while Process(pid, start_time).alive():
        assert time.monotonic() < deadline
        time.sleep(0.01)
