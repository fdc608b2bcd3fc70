"""One run of an external runtime's command line, seen from the shim: it never waits, and it never believes.

The runtime may hang, die, or end without having done what it was asked. It has a deadline; its process group is killed
after that; whether it succeeded says its exit status, and what went wrong the last lines of its log.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import signal
from collections.abc import Callable, Iterator
from typing import Any, Final

from runtime.errors import StartError, to_doc
from runtime.external.view import RunPlan, run_tool
from runtime.linux.cgroups import Cgroup
from runtime.linux.fds import Fd
from runtime.linux.syscalls import CLONE_NEWNS
from runtime.shim.birth import Birth, exit_code
from runtime.shim.home import Home

LOG: Final = "log.json"
WORDS: Final = "stderr"
TAIL: Final = 8 * 1024
LINES: Final = 3
CHARACTERS: Final = 600

#: Called with the error as JSON, or with b"" when the runtime has done it.
Done = Callable[[bytes], None]
#: Calls back with the wait status of a child of the shim's, also of one that has ended already.
Expect = Callable[[int, Callable[[int], None]], None]


class Tool:
    """The runtime's command line for one container. `view` is what its first run has made (view.py)."""

    def __init__(self, home: Home, expect: Expect, container_id: str, bundle: str, cgroup: Cgroup) -> None:
        runtime = home.doc["runtime"]
        self.name: str = runtime["name"]
        self.command: list[str] = [runtime["path"], *runtime.get("args", ())]
        self.home = home
        self.expect = expect
        self.container_id = container_id
        self.bundle = bundle
        self.view: Fd | None = None
        self._cgroup = cgroup

    def birthplace(self, verb: str) -> contextlib.AbstractContextManager[Fd | None]:
        """Beside v1 hierarchies the container's cgroup v2, which the runtime is not shown but passes on.

        On a unified host the runtime itself moves what it starts, and the container's limits are not for the runtime.
        `delete` comes when the cgroup was killed, and Linux 6.14 to 6.18 at least kill what is cloned into such a one.
        """
        layout = self.home.layout
        passed_on = layout.v1 and layout.v2 and verb != "delete"
        return Fd(self._cgroup.clone_fd()) if passed_on else contextlib.nullcontext()

    def close(self) -> None:
        """Let go of the view: its mounts are gone with it."""
        if self.view is not None:
            self.view.close()
            self.view = None

    def run(self, verb: str, arguments: list[str], seconds: float, done: Done, **plan: Any) -> Run:
        """Run `verb` for this container. Raises OSError when nothing can be cloned.

        `plan` are fields of RunPlan, and `trailing`: arguments behind the container's id.
        """
        log = f"{self.bundle}/{LOG}"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(log)
        common = ["--root", f"{self.bundle}/run", "--log", log, "--log-format", "json"]
        argv = [*self.command, *common, verb, *arguments, self.container_id, *plan.pop("trailing", ())]
        view = self.view.fileno() if self.view else -1
        streams = plan.pop("streams", None)
        if streams:
            return Run(self, verb, RunPlan(argv, self.bundle, streams, view, self.home.layout, **plan), seconds, done)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        with Fd(os.open(f"{self.bundle}/{WORDS}", flags, 0o600)) as words:
            streams = (-1, words.fileno(), words.fileno())
            return Run(self, verb, RunPlan(argv, self.bundle, streams, view, self.home.layout, **plan), seconds, done)


class Run:
    """A run under way; `done` is called exactly once."""

    def __init__(self, tool: Tool, verb: str, plan: RunPlan, seconds: float, done: Done) -> None:
        self._tool = tool
        self._verb = verb
        self._seconds = seconds
        self._done: Done | None = done
        self._born = self._killed = False
        self._birth = Birth(tool.home.loop, f"{tool.name} {verb}", self._executed)
        with tool.birthplace(verb) as cgroup:
            flags = CLONE_NEWNS if plan.view < 0 else 0
            self._birth.begin(functools.partial(run_tool, plan), flags, cgroup.fileno() if cgroup else -1)
        self._timer = tool.home.loop.call_later(seconds, self._late)
        tool.expect(self._birth.pid, self._reaped)

    def _executed(self, error: bytes, view: Fd | None) -> None:
        self._born = True
        if view is not None:
            self._tool.view = view
        if error:
            self._finish(error)

    def _reaped(self, status: int) -> None:
        if not self._born:
            self._birth.settle()
        if status == 0:
            self._finish(b"")
            return
        code = exit_code(status)
        how = f"was killed by signal {code - 128}" if os.WIFSIGNALED(status) else f"ended with exit status {code}"
        self._finish(self._failure("was ended by us" if self._killed else how))

    def _late(self) -> None:
        error = self._failure(f"did not end within {self._seconds:g} s and was killed")
        self.kill()
        self._finish(error)

    def kill(self) -> None:
        """SIGKILL it and its process group; `done` is called when it is dead."""
        if self._done is None:
            return
        self._killed = True
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._birth.pidfd.fileno(), signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):  # not reaped yet, so the number is still its own
            os.killpg(self._birth.pid, signal.SIGKILL)

    def _failure(self, how: str) -> bytes:
        return failure(self._tool, self._verb, how)

    def _finish(self, error: bytes) -> None:
        done, self._done = self._done, None
        if done is None:
            return
        self._timer.cancel()
        self._birth.pidfd.close()
        done(error)


def failure(tool: Tool, verb: str, how: str) -> bytes:
    """An error about a run as JSON, with the runtime's last words."""
    words = "; ".join(_last_words(tool.bundle))
    text = f"{tool.name} {verb} {how}" + (f": {words}" if words else "; it has logged nothing")
    return json.dumps(to_doc(StartError(text))).encode()


def _last_words(bundle: str) -> list[str]:
    """The last messages of the log, or of stderr when there is no log, made fit for one line."""
    for name in (LOG, WORDS):
        lines = [_message(line) for line in _tail(f"{bundle}/{name}").splitlines()]
        if lines := [line for line in lines if line][-LINES:]:
            return list(dict.fromkeys(lines))
    return []


def _tail(path: str) -> str:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return ""
    with open(fd, "rb") as file:
        file.seek(max(0, os.fstat(fd).st_size - TAIL))
        return file.read(TAIL).decode("utf-8", "replace")


def _message(line: str) -> str:
    """`msg` of a JSON record of the log; what is no such record stands for itself, without control characters."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        record = None
    if isinstance(record, dict):
        if record.get("level") in ("debug", "info"):
            return ""
        line = str(record.get("msg", line))
    return "".join(_printable(line.strip()))[:CHARACTERS]


def _printable(text: str) -> Iterator[str]:
    return (character if character.isprintable() else " " for character in text)
