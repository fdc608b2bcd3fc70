"""One container, as its shim holds it: from the request to start it to the record of how it ended.

    start() --> birth --> running --> ended --> published --> gone
                  \\--> failed: everything is undone, the error goes to the caller

Its state is not stored but follows from what is there. An exit is published when nothing more can come out of its
streams: first to the log, then to disk, then to crid.
"""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from runtime import state
from runtime.errors import NotFound
from runtime.init import InitPlan, run_init
from runtime.linux import syscalls
from runtime.linux.cgroups import Cgroup
from runtime.linux.failpoints import failpoint
from runtime.linux.fds import Fd
from runtime.shim import userns
from runtime.shim.birth import Birth, exit_code
from runtime.shim.console import Console
from runtime.shim.home import Home

#: How long a failed or ended container is given for what normally takes no time at all.
GRACE_SECONDS: Final = 2.0

#: Called with the error as JSON, or with b"" when the container runs.
Done = Callable[[bytes], None]


class Container:
    """A container and its first process; everything happens in the shim's loop."""

    __slots__ = (
        "_birth", "_done", "_error", "_finished_at", "_flags", "_home", "_published", "_wait_status",
        "cgroup", "console", "exit", "id", "pid", "pidfd", "started_at",
    )  # fmt: skip

    def __init__(
        self, home: Home, doc: Mapping[str, Any], published: Callable[[Container], None], log: Fd | None = None
    ) -> None:
        """`doc` has the keys container (id), cgroup (path), pid_own and those of Console; `log` is its open log.

        `published` is called once, when the exit is on disk. Raises OSError when the log cannot be opened.
        """
        self.id: str = doc["container"]
        self.cgroup = Cgroup(doc["cgroup"], home.layout)
        self._flags = syscalls.CLONE_NEWNS | (syscalls.CLONE_NEWPID if doc.get("pid_own") else 0)
        self.console = Console(home.loop, doc, self._output_ended, log)
        self.pid = 0
        self.pidfd: Fd | None = None
        self.started_at = 0
        self.exit: dict[str, Any] | None = None
        self._home = home
        self._published = published
        self._birth: Birth | None = None
        self._done: Done | None = None
        self._error = b""
        self._wait_status: int | None = None
        self._finished_at = 0

    @property
    def running(self) -> bool:
        """Whether its program has been executed and has not ended."""
        return self.started_at > 0 and self._wait_status is None

    @property
    def gone(self) -> bool:
        """Whether its end is published: nothing of it is left but the record."""
        return self.exit is not None

    def status(self) -> dict[str, Any]:
        """For crid: pid and started_at; after the end exit_code, finished_at, oom_killed."""
        doc: dict[str, Any] = {"container": self.id, "pid": self.pid, "started_at": self.started_at}
        if self.console.log.lost:
            doc |= {"log_bytes_lost": self.console.log.lost, "log_error": self.console.log.why}
        return doc | (self.exit or {})

    def start(self, document: bytes, done: Done, target: Fd | None = None) -> None:
        """Clone the first process into its cgroup, which exists; `done` is called later. Raises OSError.

        `document` is the process's plan (`runtime.preparation`), passed on unread.
        `target` is the pidfd of a process whose PID namespace is shared instead of the pod's (CRI TARGET).
        """
        failpoint("shim.start.before_clone")
        self._done = done
        birth = Birth(self._home.loop, f"container {self.id}", self._born)
        theirs: list[Fd | None] = []
        try:
            theirs = self.console.open_pipes()
            stdin, stdout, stderr = map(_number, theirs)
            init = InitPlan(self._home.state_dir, document, self.cgroup, (stdin, stdout, stderr))
            with Fd(self.cgroup.clone_fd()) as cgroup:
                if self._home.userns is None:
                    body = partial(run_init, init)
                    self._home.bear(birth, body, self._flags, cgroup.fileno(), target)
                else:
                    userns.bear_container(self._home, birth, init, self._flags, cgroup.fileno(), target)
        except BaseException:
            self.console.close()
            raise
        finally:
            for fd in theirs:
                if fd:
                    fd.close()
        self._birth, self.pid, self.pidfd = birth, birth.pid, birth.pidfd

    def _born(self, error: bytes, master: Fd | None) -> None:
        self._birth = None
        if error:
            self._fail(error)
            return
        if master is not None:
            self.console.adopt_terminal(master)
        self.started_at = self._finished_at or time.time_ns()  # it may have ended before it was told that it runs
        self._tell(b"")
        if self._wait_status is not None:
            self._end()

    def _tell(self, error: bytes) -> None:
        done, self._done = self._done, None
        if done is not None:
            done(error)

    def _fail(self, error: bytes) -> None:
        """The child reported an error or died: say so as soon as it is reaped, because then its cgroup is free."""
        self._error = error
        self.cgroup.kill()
        if self._wait_status is not None:
            self._failed()
        else:
            self._home.loop.call_later(GRACE_SECONDS, self._failed)  # it may hang in the kernel

    def _failed(self) -> None:
        self.console.close()
        self._close_pidfd()
        self._tell(self._error)

    def ended(self, wait_status: int) -> None:
        """The first process was reaped."""
        self._wait_status, self._finished_at = wait_status, time.time_ns()
        if self._birth is not None:
            self._birth.settle()  # comes back through _born()
        elif self._error:
            self._failed()
        elif self.started_at:
            self._end()

    def _end(self) -> None:
        self.console.drain()
        if not self.console.open:
            self._publish()
            return
        # Others of the container hold its streams; without a PID namespace of its own they outlive its first process.
        self.cgroup.kill()
        self._home.loop.call_later(GRACE_SECONDS, self._publish)

    def _output_ended(self) -> None:
        if self._wait_status is not None and self.started_at and not self.gone:
            self._publish()

    def _publish(self) -> None:
        if self.gone:
            return
        assert self._wait_status is not None
        self.exit = {
            "container": self.id,
            "exit_code": exit_code(self._wait_status),
            "finished_at": self._finished_at,
            "oom_killed": self.cgroup.oom_kills() > 0,
        }
        self.console.close()
        self._close_pidfd()
        record = {"cgroup": self.cgroup.path, "started_at": self.started_at} | self.exit
        try:
            state.write_container(self._home.state_dir, self.id, record)
        except OSError as error:  # a full disk, or an emptied directory: then telling it is all that is left
            self._home.loop.report(error)
        failpoint("shim.exit.after_write")
        self._published(self)

    def sweep(self) -> None:
        """After the end: kill stragglers, and remove the cgroup if that is possible at once."""
        self.cgroup.kill()
        with contextlib.suppress(OSError):  # somebody is still dying: removal and the end of the pod try again
            self.cgroup.remove(0)

    def _close_pidfd(self) -> None:
        if self.pidfd is not None:
            self.pidfd.close()
            self.pidfd = None

    def signal(self, signum: int) -> None:
        """Signal the first process; raises NotFound when it has ended."""
        if not self.running or self.pidfd is None:
            raise NotFound(f"container {self.id} is not running")
        signal.pidfd_send_signal(self.pidfd.fileno(), signum)

    def resume(self) -> None:
        """Let it go on if somebody has paused it."""
        with contextlib.suppress(OSError):  # it is gone
            self.cgroup.freeze(False)

    def kill(self) -> None:
        """SIGKILL everything in it."""
        if not self.gone:
            self.cgroup.kill()


def _number(fd: Fd | None) -> int:
    return -1 if fd is None else fd.fileno()
