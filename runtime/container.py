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
from collections.abc import Callable
from typing import Any, Final

from runtime import rootfs, state
from runtime.errors import NotFound
from runtime.init import InitPlan, run_init
from runtime.linux import syscalls
from runtime.linux.cgroups import Cgroup
from runtime.linux.failpoints import failpoint
from runtime.linux.fds import Fd
from runtime.process import ProcessPlan, prepare
from runtime.shim.birth import Birth, Outcome, exit_code
from runtime.shim.console import Console
from runtime.shim.sandbox import Sandbox
from runtime.spec import ContainerSpec

#: How long a failed or ended container is given for what normally takes no time at all.
GRACE_SECONDS: Final = 2.0

Done = Callable[[Exception | None], None]


class Container:
    """A container and its first process; everything happens in the shim's loop."""

    def __init__(self, sandbox: Sandbox, spec: ContainerSpec, published: Callable[[Container], None]) -> None:
        """`published` is called once, when the exit is on disk."""
        self.spec = spec
        self.cgroup = Cgroup(sandbox.cgroup_path(spec), sandbox.layout)
        self.console = Console(sandbox.loop, spec, self._output_ended)
        self.pid = 0
        self.pidfd: Fd | None = None
        self.started_at = 0
        self.exit: dict[str, Any] | None = None
        self._sandbox = sandbox
        self._published = published
        self._birth: Birth | None = None
        self._failed: Done | None = None
        self._error: Exception | None = None
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
        doc: dict[str, Any] = {"container": self.spec.id, "pid": self.pid, "started_at": self.started_at}
        if self.console.log.lost:
            doc |= {"log_bytes_lost": self.console.log.lost, "log_error": self.console.log.why}
        return doc | (self.exit or {})

    def start(self, done: Done, target: Fd | None = None) -> None:
        """Make cgroup, streams and first process; `done` is called later. When this raises, nothing is left.

        `target` is the pidfd of a process whose PID namespace is shared instead of the pod's (CRI TARGET).
        """
        process = self.spec.oci["process"]
        bounding = self._sandbox.bounding
        plan = prepare(process, self.spec.id, self.spec.seccomp_filter, bounding, terminal=self.spec.tty)
        directory = self._sandbox.spec.state_dir
        with contextlib.ExitStack() as undo:
            undo.callback(self.console.close)
            undo.callback(state.forget_container, directory, self.spec.id)
            state.write_container(directory, self.spec.id, self._record())
            undo.callback(self.cgroup.remove)
            failpoint("shim.start.before_cgroup")
            self.cgroup.create()
            self.cgroup.apply((self.spec.oci.get("linux") or {}).get("resources") or {})
            failpoint("shim.start.before_clone")
            self._clone(plan, process.get("oomScoreAdj"), done, target)
            undo.pop_all()

    def _record(self) -> dict[str, Any]:
        return {"container": self.spec.id, "cgroup": self.cgroup.path, "started_at": self.started_at}

    def _clone(self, process: ProcessPlan, oom_score_adj: int | None, done: Done, target: Fd | None) -> None:
        with contextlib.ExitStack() as childs:
            join = self.cgroup.prepare_join()
            childs.callback(join.close)
            init = InitPlan(
                staging=self._sandbox.spec.state_dir,
                plan_mounts=lambda: rootfs.plan(self.spec, self.cgroup),
                process=process,
                join=join,
                streams=self.console.open_pipes(childs),
                oom_score_adj=oom_score_adj,
            )
            cgroup_fd = childs.enter_context(Fd(self.cgroup.clone_fd()))
            birth = Birth(self._sandbox.loop, f"container {self.spec.id}", lambda outcome: self._born(outcome, done))
            with self._sandbox.birthplace(target) as flags:
                birth.begin(lambda status: run_init(init, status), syscalls.CLONE_NEWNS | flags, cgroup_fd.fileno())
            self._birth, self.pid, self.pidfd = birth, birth.pid, birth.pidfd

    def _born(self, outcome: Outcome, done: Done) -> None:
        self._birth = None
        if outcome.error is not None:
            self._fail(outcome.error, done)
            return
        if outcome.master is not None:
            self.console.adopt_terminal(outcome.master)
        self.started_at = time.time_ns()
        done(None)
        if self._wait_status is not None:
            self._end()

    def _fail(self, error: Exception, done: Done) -> None:
        """The child reported an error or died: undo the start as soon as it is reaped."""
        self._error, self._failed = error, done
        self.cgroup.kill()
        if self._wait_status is not None:
            self._undo_start()
        else:
            self._sandbox.loop.call_later(GRACE_SECONDS, self._undo_start)  # it may hang in the kernel

    def _undo_start(self) -> None:
        done, self._failed = self._failed, None
        if done is None:
            return
        self.console.close()
        self._close_pidfd()
        try:
            self.cgroup.remove(0)
            state.forget_container(self._sandbox.spec.state_dir, self.spec.id)
        except OSError as error:
            assert self._error is not None
            self._error.add_note(f"and its cgroup could not be removed yet: {error}")
        done(self._error)

    def ended(self, wait_status: int) -> None:
        """The first process was reaped."""
        self._wait_status, self._finished_at = wait_status, time.time_ns()
        if self._birth is not None:
            self._birth.settle()  # comes back through _born()
        elif self._failed is not None:
            self._undo_start()
        elif self.started_at:
            self._end()

    def _end(self) -> None:
        self.console.drain()
        if not self.console.open:
            self._publish()
            return
        # Others of the container hold its streams; without a PID namespace of its own they outlive its first process.
        self.cgroup.kill()
        self._sandbox.loop.call_later(GRACE_SECONDS, self._publish)

    def _output_ended(self) -> None:
        if self._wait_status is not None and self.started_at and not self.gone:
            self._publish()

    def _publish(self) -> None:
        if self.gone:
            return
        assert self._wait_status is not None
        self.exit = {
            "container": self.spec.id,
            "exit_code": exit_code(self._wait_status),
            "finished_at": self._finished_at,
            "oom_killed": self.cgroup.oom_kills() > 0,
        }
        self.console.close()
        self._close_pidfd()
        state.write_container(self._sandbox.spec.state_dir, self.spec.id, self._record() | self.exit)
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
            raise NotFound(f"container {self.spec.id} is not running")
        signal.pidfd_send_signal(self.pidfd.fileno(), signum)

    def kill(self) -> None:
        """SIGKILL everything in it."""
        if not self.gone:
            self.cgroup.kill()

    def forget(self) -> None:
        """Remove what is left of an ended container: cgroup and record. Raises OSError."""
        self.cgroup.remove()
        state.forget_container(self._sandbox.spec.state_dir, self.spec.id)
