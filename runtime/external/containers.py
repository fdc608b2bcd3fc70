"""A container that an external runtime makes: the same life as any (`runtime.container`), through a command line.

    start():  create --> pid --> start --> running --> ended --> published --> delete --> gone
                 \\---------------\\--> failed: delete --force; everything is undone, the error goes to the caller

The first process is the shim's child as soon as `create` has ended; it waits there for `start`. So its exit is never
missed, and it is the kernel that tells of it, not the runtime.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from runtime import state
from runtime.container import Container, Done
from runtime.errors import NotFound, StartError
from runtime.external.processes import is_ours, read_pid
from runtime.external.runs import Expect, Run, Tool, failure
from runtime.external.terminals import ConsoleSocket
from runtime.linux.failpoints import failpoint
from runtime.linux.fds import Fd
from runtime.linux.procs import pid_of
from runtime.shim.home import Home

CREATE_SECONDS: Final = 60.0
START_SECONDS: Final = 30.0
CALL_SECONDS: Final = 8.0
DELETE_SECONDS: Final = 8.0
PID_FILE: Final = "init.pid"


class ExternalContainer(Container):
    """One container; everything happens in the shim's loop."""

    def __init__(
        self, home: Home, expect: Expect, doc: Mapping[str, Any], published: Callable[[Container], None]
    ) -> None:
        """As Container; `expect` calls back when a child of the shim's has ended."""
        super().__init__(home, doc, published)
        self.bundle = state.bundle_path(home.state_dir, self.id)
        self.tool = Tool(home, expect, self.id, self.bundle, self.cgroup)
        self._expect = expect
        self._own_pid = bool(doc.get("pid_own"))
        self._terminal = ConsoleSocket(self.bundle, "tty.sock") if doc["tty"] else None
        self._starting: Run | None = None
        self._deleted = False

    @property
    def gone(self) -> bool:
        """Whether its end is published and the runtime has forgotten it."""
        return self._deleted

    def start(self, document: bytes, done: Done, target: Fd | None = None) -> None:
        """Have it created and started; `done` is called later. `document` is that of bundle.py, passed on unread."""
        failpoint("shim.start.before_clone")
        self._done = done
        theirs: list[Fd | None] = []
        try:
            theirs = self.console.open_pipes()
            stdin, stdout, stderr = (fd.fileno() if fd else -1 for fd in theirs)
            self._starting = self.tool.run(
                "create",
                ["--bundle", self.bundle, "--pid-file", PID_FILE, *self._console()],
                CREATE_SECONDS,
                self._created,
                streams=(stdin, stdout, stderr),
                document=document,
                pid_namespace=self._pid_namespace(target),
            )
        except BaseException:
            self.console.close()
            self._close_terminal()
            raise
        finally:
            for fd in theirs:
                if fd:
                    fd.close()

    def _console(self) -> list[str]:
        return ["--console-socket", self._terminal.name] if self._terminal else []

    def _pid_namespace(self, target: Fd | None) -> str:
        shared = None if self._own_pid else target or self._home.init
        if shared is None:
            return "" if self._home.pid == "node" and not self._own_pid else "new"
        try:
            return f"/proc/{pid_of(shared.fileno())}/ns/pid"
        except ProcessLookupError:
            raise StartError("the process whose PID namespace is shared has ended") from None

    def _created(self, error: bytes) -> None:
        self._starting = None
        if error:
            return self._abandon(error)
        try:
            self._adopt()
            self._starting = self.tool.run("start", [], START_SECONDS, self._begun)
        except (OSError, ValueError) as trouble:
            self._abandon(failure(self.tool, "create", f"reported success, but {trouble}"))

    def _adopt(self) -> None:
        """Take over what `create` has left: a child that waits, and perhaps a terminal."""
        pid = read_pid(f"{self.bundle}/{PID_FILE}")
        if not is_ours(pid):
            raise ValueError(f"process {pid} of its pid file is none that it has made and that lives")
        self.pid, self.pidfd = pid, Fd(os.pidfd_open(pid))
        self._expect(pid, self.ended)
        if self._terminal is not None:
            master = self._terminal.take()
            if master is None:
                raise ValueError("it has delivered no terminal")
            self.console.adopt_terminal(master)

    def _begun(self, error: bytes) -> None:
        self._starting = None
        if error:
            return self._abandon(error)
        self.started_at = time.time_ns()
        self._tell(b"")
        if self._wait_status is not None:
            self._end()

    def ended(self, wait_status: int) -> None:
        """The first process was reaped; before its start has come to its end, that end decides."""
        self._wait_status, self._finished_at = wait_status, time.time_ns()
        if self.started_at:
            self._end()

    def _publish(self) -> None:
        if self.exit is None:  # `gone` comes later than the record here
            super()._publish()

    def _abandon(self, error: bytes) -> None:
        """It could not be created or started: leave nothing of it, then say why."""
        self._error = error
        self.cgroup.kill()
        self._delete(self._failed)

    def _failed(self) -> None:
        self._close_terminal()
        super()._failed()

    def delete(self, done: Callable[[], None]) -> None:
        """After its end: let the runtime run its poststop hooks and forget it, then call `done`."""

        def deleted() -> None:
            self._deleted = True
            done()

        self._close_terminal()
        self._delete(deleted)

    def _delete(self, done: Callable[[], None]) -> None:
        """`delete --force`, whatever comes of it: what is left then is in the cgroup and in the bundle, and both go."""

        def ended(error: bytes) -> None:
            self.tool.close()
            done()

        if not os.path.lexists(f"{self.bundle}/run/{self.id}"):
            ended(b"")
            return
        try:
            self.tool.run("delete", ["--force"], DELETE_SECONDS, ended)
        except OSError:
            ended(b"")

    def _close_terminal(self) -> None:
        if self._terminal is not None:
            self._terminal.close()

    def kill(self) -> None:
        """SIGKILL everything in it; one that is being started does not come to life.

        After its end there is only `delete`, which has hooks to run and a deadline.
        """
        if self.exit is not None:
            return
        if self._starting is not None:
            self._starting.kill()
        super().kill()

    def signal_through(self, signum: int, done: Done) -> None:
        """`kill`: only the runtime knows what the signal is for, a process or a virtual machine. Raises NotFound."""
        if not self.running:
            raise NotFound(f"container {self.id} is not running")
        self.tool.run("kill", [], CALL_SECONDS, done, trailing=[str(signum)])

    def update(self, resources: bytes, done: Done) -> None:
        """`update` with linux.resources as JSON; the cgroup has them already. Raises NotFound."""
        if not self.running:
            raise NotFound(f"container {self.id} is not running")
        name = "resources.json"
        self.tool.run("update", ["--resources", name], CALL_SECONDS, done, file=name, content=resources)
