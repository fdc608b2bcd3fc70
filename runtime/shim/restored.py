"""A container that CRIU brings up, as its shim holds it; from its arrival on it is a container like any other.

    restore() --> birth of criu --> criu works, crid talks to it --> arrived() --> running --> ended ...
                                          \\--> criu ends, or is late: everything in the cgroup is killed

Until it has arrived the shim knows criu only. criu is in the container's cgroup and namespaces of mounts, so killing
the cgroup ends whatever there is of both.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable
from typing import Final

from runtime import criu
from runtime.container import Container, Done
from runtime.linux import syscalls
from runtime.linux.fds import Fd
from runtime.shim.birth import Birth

#: crid has a shorter deadline and tells more; this one is for a crid that is gone.
RESTORE_SECONDS: Final = 660.0


class RestoredContainer(Container):
    """A container and the criu that restores its processes; everything happens in the shim's loop."""

    def restore(self, document: bytes, socket: Fd, done: Done, lost: Callable[[Container], None]) -> int:
        """Begin: the pid of criu, which is in `criu` from then on. Raises OSError.

        `done` is called when criu takes requests, or with the error; `lost` if the container never arrives after all.
        """
        self._done, self._lost = done, lost
        birth = Birth(self._home.loop, f"criu for container {self.id}", self._begun)
        theirs = self.console.open_pipes()
        try:
            stdin, stdout, stderr = (fd.fileno() if fd else -1 for fd in theirs)
            streams = stdin, stdout, stderr
            init = self._home.init.fileno() if self._home.init else -1
            plan = criu.RestorePlan(self._home.state_dir, document, self.cgroup, socket.fileno(), streams, init)
            with Fd(self.cgroup.clone_fd()) as cgroup:
                birth.begin(functools.partial(criu.run_restore, plan), syscalls.CLONE_NEWNS, cgroup.fileno())
        except BaseException:
            self.console.close()
            raise
        finally:
            for fd in theirs:
                if fd:
                    fd.close()
        self._birth, self.pidfd = birth, birth.pidfd
        self.criu = birth.pid
        return self.criu

    def _begun(self, error: bytes, master: Fd | None) -> None:
        self._birth = None
        if error:
            self._fail(error)
            return
        self._master = master
        self._tell(b"")
        self._timer = self._home.loop.call_later(RESTORE_SECONDS, self.kill)

    def criu_ended(self, wait_status: int) -> None:
        """criu was reaped; a container that has not arrived by now never will."""
        if self._birth is not None:
            self._birth.settle()  # comes back through _begun()
        if self._error:
            self._failed()
        elif not self.started_at:
            self._timer.cancel()
            self.cgroup.kill()
            if self._master is not None:
                self._master.close()
            self.console.close()
            self._close_pidfd()
            self._lost(self)

    def arrived(self, pid: int) -> None:
        """Take over the restored first process, a child of this shim, before criu lets it run. Raises OSError."""
        self._timer.cancel()
        self._close_pidfd()
        self.pid, self.pidfd = pid, Fd(os.pidfd_open(pid))
        if self._master is not None:
            self.console.adopt_terminal(self._master)
        self.started_at = time.time_ns()
