"""One more process in a container of an external runtime: `exec --detach`, after which it is the shim's child.

It lives in the container's cgroup; when it runs out of time it is killed with its descendants.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from typing import Any, Final

from runtime.errors import NotFound
from runtime.external.containers import ExternalContainer
from runtime.external.processes import is_ours, kill_family, parent, read_pid, set_oom_score_adj
from runtime.external.runs import Expect, Run, failure
from runtime.external.terminals import ConsoleSocket
from runtime.shim.birth import Finished, exit_code

EXEC_SECONDS: Final = 30.0


class ExternalExec:
    """A process of an ExecSpec; everything happens in the shim's loop. The counterpart of shim.execs.ExecProcess."""

    def __init__(self, container: ExternalContainer, doc: Mapping[str, Any], number: int, expect: Expect) -> None:
        """`doc` has the keys exec (an id, which is only compared), tty and oom_score_adj. `number` is the shim's own.

        `oom_score_adj`, if there is one, it gets from us: runc gives an exec what its container was started with, crun
        nothing.
        """
        self.id: str = doc["exec"]
        self.pid = 0
        self.exit_code: int | None = None
        self._container = container
        self._expect = expect
        self._name = f"exec-{number}"
        self._oom_score_adj: int | None = doc.get("oom_score_adj")
        self._tty = bool(doc.get("tty"))
        self._terminal: ConsoleSocket | None = None
        self._run: Run | None = None
        self._killed = False

    def start(
        self, document: bytes, streams: tuple[int, int, int], started: Finished, ended: Callable[[ExternalExec], None]
    ) -> None:
        """`document` is an OCI process, passed on unread. `started` comes first, then, if it ran, `ended`.

        Raises NotFound when the container does not run, OSError.
        """
        container = self._container
        if not container.running:
            raise NotFound(f"container {container.id} is not running")
        self._started, self._ended = started, ended
        file = f"{self._name}.json"
        try:
            arguments = ["--detach", "--process", file, "--pid-file", f"{self._name}.pid", *self._console()]
            self._run = container.tool.run(
                "exec", arguments, EXEC_SECONDS, self._executed, streams=streams, file=file, content=document
            )
        except BaseException:
            self._clean()
            raise

    def _console(self) -> list[str]:
        if not self._tty:
            return []
        self._terminal = ConsoleSocket(self._container.bundle, f"{self._name}.sock")
        return ["--console-socket", self._terminal.name]

    def _executed(self, error: bytes) -> None:
        self._run = None
        try:
            if error:
                self._find_half_made()
                raise ValueError
            pid = read_pid(f"{self._container.bundle}/{self._name}.pid")
            if parent(pid) not in (os.getpid(), 0):  # 0: it has ended
                raise ValueError(f"process {pid} of its pid file is none that it has made")
            self.pid = pid
            if self._oom_score_adj is not None:
                set_oom_score_adj(pid, self._oom_score_adj)
            master = self._terminal.take() if self._terminal else None
            if self._terminal and master is None:
                raise ValueError("it has delivered no terminal")
        except (OSError, ValueError) as trouble:
            self._clean()
            self.kill()
            self._started(error or failure(self._container.tool, "exec", f"reported success, but {trouble}"), None)
            return
        self._clean()
        self._started(b"", master)
        self._expect(self.pid, self.reaped)
        if self._killed:
            self.kill()

    def _find_half_made(self) -> None:
        """A runtime that hung, or was killed, may have started the process before that; it must not go on."""
        with contextlib.suppress(OSError, ValueError):
            pid = read_pid(f"{self._container.bundle}/{self._name}.pid")
            self.pid = pid if is_ours(pid) else 0

    def reaped(self, wait_status: int) -> None:
        """The process was waited for."""
        self.exit_code = exit_code(wait_status)
        self._ended(self)

    def kill(self) -> None:
        """SIGKILL it and what it has started; no error when they are gone."""
        self._killed = True
        if self._run is not None:
            self._run.kill()
        elif self.pid and self.exit_code is None:
            kill_family(self.pid, self._container.cgroup)

    def _clean(self) -> None:
        """Remove what was only for the start."""
        if self._terminal is not None and self._run is None:
            self._terminal.close()
        for suffix in ("json", "pid"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{self._container.bundle}/{self._name}.{suffix}")
