"""One more process in a container, from the shim's side.

It gets a cgroup of its own beneath the container's (on cgroup v2, without controllers, so all limits stay the
container's): a probe that runs out of time can be killed with all that it has started, and with nothing else.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable

from runtime.container import Container
from runtime.errors import NotFound
from runtime.exec import ExecPlan, run_exec
from runtime.linux.fds import Fd
from runtime.process import prepare
from runtime.shim.birth import Birth, Outcome, exit_code
from runtime.shim.sandbox import Sandbox
from runtime.spec import ExecSpec


class ExecProcess:
    """A process of an ExecSpec; everything happens in the shim's loop."""

    def __init__(self, sandbox: Sandbox, container: Container, spec: ExecSpec, number: int) -> None:
        """`number` is unique in the shim; the id is the caller's and only compared."""
        self.id = spec.id
        self.pid = 0
        self.exit_code: int | None = None
        self._spec = spec
        self._sandbox = sandbox
        self._container = container
        self._directory = f"{container.cgroup.v2}/exec-{number}"
        self._failed = False
        self._birth: Birth | None = None
        self._pidfd: Fd | None = None

    def start(
        self, streams: tuple[int, int, int], started: Callable[[Outcome], None], ended: Callable[[ExecProcess], None]
    ) -> None:
        """Clone it into the container. `started` comes first, then, if it ran, `ended`.

        Raises NotFound when the container does not run, InvalidSpec, OSError.
        """
        container = self._container
        if not container.running or container.pidfd is None:
            raise NotFound(f"container {container.spec.id} is not running")
        self._started, self._ended = started, ended
        own = container.spec.oci["process"]
        process = prepare(
            self._document(own), container.spec.id, self._filter(), self._sandbox.bounding, terminal=self._spec.tty
        )
        with contextlib.ExitStack() as childs:
            join = container.cgroup.prepare_join()
            childs.callback(join.close)
            os.mkdir(self._directory)
            try:
                cgroup = childs.enter_context(Fd(os.open(self._directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)))
                plan = ExecPlan(container.pidfd.fileno(), process, join, streams, own.get("oomScoreAdj"))
                birth = Birth(self._sandbox.loop, f"exec in container {container.spec.id}", self._born)
                with self._birthplace():
                    birth.begin(lambda status: run_exec(plan, status), 0, cgroup.fileno())
            except BaseException:
                self._remove_cgroup()
                raise
        self._birth, self.pid, self._pidfd = birth, birth.pid, birth.pidfd

    def _birthplace(self) -> contextlib.AbstractContextManager[object]:
        if self._sandbox.spec.pid == "node" and not self._container.spec.pid_target:
            return contextlib.nullcontext()
        return self._sandbox.birthplace(self._container.pidfd)

    def _document(self, own: dict[str, object]) -> dict[str, object]:
        """An OCI process: the container's own, with what the spec says instead."""
        spec = self._spec
        given = {
            "args": spec.args,
            "env": spec.env,
            "cwd": spec.cwd,
            "user": spec.user,
            "capabilities": spec.capabilities,
            "noNewPrivileges": spec.no_new_privileges,
        }
        return own | {key: value for key, value in given.items() if value is not None}

    def _filter(self) -> str:
        own = self._container.spec.seccomp_filter
        return own if self._spec.seccomp_filter is None else self._spec.seccomp_filter

    def _born(self, outcome: Outcome) -> None:
        self._birth = None
        self._failed = outcome.error is not None
        if self._failed:
            self.kill()
        self._started(outcome)

    def reaped(self, wait_status: int) -> None:
        """The process was waited for."""
        self.exit_code = exit_code(wait_status)
        if self._birth is not None:
            self._birth.settle()
        if self._pidfd is not None:
            self._pidfd.close()
        self._remove_cgroup()
        if not self._failed:
            self._ended(self)

    def kill(self) -> None:
        """SIGKILL it and all that it has started; no error when they are gone."""
        with contextlib.suppress(FileNotFoundError):
            fd = os.open(f"{self._directory}/cgroup.kill", os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(fd, b"1")
            finally:
                os.close(fd)

    def _remove_cgroup(self) -> None:
        with contextlib.suppress(OSError):  # EBUSY: it left processes running; the container's removal takes it along
            os.rmdir(self._directory)
