"""One more process in a container, from the shim's side.

It gets a cgroup of its own beneath the container's (on cgroup v2, without controllers, so all limits stay the
container's): a probe that runs out of time can be killed with all that it has started, and with nothing else.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable

from runtime.container import Container
from runtime.errors import NotFound
from runtime.exec import ExecPlan, run_exec
from runtime.linux.fds import Fd
from runtime.shim import userns
from runtime.shim.birth import Birth, Finished, exit_code
from runtime.shim.home import Home

#: Seconds between the attempts to remove its cgroup, each twice as long as the one before.
FIRST_WAIT, LAST_WAIT = 0.05, 1.6
#: Shim.expect: the child's pid, and what to call with its wait status.
Expect = Callable[[int, Callable[[int], None]], None]


class ExecProcess:
    """A process of an ExecSpec; everything happens in the shim's loop."""

    def __init__(self, home: Home, container: Container, id: str, number: int, expect: Expect) -> None:
        """`number` is unique in the shim; the id is the caller's and only compared. `expect` is the shim's."""
        self.id = id
        self.pid = 0
        self.exit_code: int | None = None
        self._home = home
        self._expect = expect
        self._container = container
        self._directory = f"{container.cgroup.v2}/exec-{number}"
        self._failed = False
        self._birth: Birth | None = None
        self._pidfd: Fd | None = None

    def start(
        self, document: bytes, streams: tuple[int, int, int], started: Finished, ended: Callable[[ExecProcess], None]
    ) -> None:
        """Clone it into the container. `started` comes first, then, if it ran, `ended`. `document` is passed on unread.

        Raises NotFound when the container does not run, OSError.
        """
        container = self._container
        if not container.running or container.pidfd is None:
            raise NotFound(f"container {container.id} is not running")
        self._started, self._ended = started, ended
        birth = Birth(self._home.loop, f"exec in container {container.id}", self._born, self._arrived)
        late = self._home.watched
        plan = ExecPlan(container.pidfd.fileno(), document, container.cgroup, streams, late)
        os.mkdir(self._directory)
        try:
            with Fd(os.open(self._directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as cgroup:
                body = functools.partial(run_exec, plan)
                if self._home.userns is not None:
                    userns.bear_exec(self._home, birth, plan, cgroup.fileno(), container.pidfd)
                elif late:
                    birth.begin(body, 0, cgroup.fileno())
                else:
                    self._home.bear(birth, body, 0, cgroup.fileno(), container.pidfd)
        except BaseException:
            self._remove_cgroup()
            raise
        self._birth, self.pid, self._pidfd = birth, birth.pid, birth.pidfd
        self._expect(self.pid, self.reaped)

    def _arrived(self, former: int) -> None:
        """The process is another one now, in the container's PID namespace; the one that made it just ends."""
        assert self._birth is not None
        self.pid, self._pidfd = self._birth.pid, self._birth.pidfd
        self._expect(former, lambda status: None)
        self._expect(self.pid, self.reaped)

    def _born(self, error: bytes, master: Fd | None) -> None:
        self._birth = None
        self._failed = bool(error)
        if error:
            self.kill()
        self._started(error, master)

    def reaped(self, wait_status: int) -> None:
        """The process was waited for."""
        self.exit_code = exit_code(wait_status)
        if self._birth is not None:
            self._birth.settle()
        if self._pidfd is not None:
            self._pidfd.close()
        if not self._failed:
            self._ended(self)  # first, because somebody waits for it
        self._remove_cgroup()

    def kill(self) -> None:
        """SIGKILL it and all that it has started; no error when they are gone."""
        with contextlib.suppress(FileNotFoundError):
            fd = os.open(f"{self._directory}/cgroup.kill", os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(fd, b"1")
            finally:
                os.close(fd)

    def _remove_cgroup(self, wait: float = FIRST_WAIT) -> None:
        try:
            os.rmdir(self._directory)
        except FileNotFoundError:
            pass  # the container's removal was faster
        except OSError:
            # EBUSY: what it had started is still dying, or goes on without it, and then ends with the container.
            if wait <= LAST_WAIT:
                self._home.loop.call_later(wait, functools.partial(self._remove_cgroup, wait * 2))
