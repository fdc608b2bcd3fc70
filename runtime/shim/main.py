"""A shim's life: out of the zygote's fork, into a session of its own, the pod's namespaces, and the loop.

    zygote --fork--> run() --> sandbox made, socket open --> {"re": 0} to crid --> loop until "stop"

It outlives crid and the zygote. When crid is gone it goes on: outputs are copied, exits recorded; whoever connects
to shim.sock next is told.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Any, Final, NoReturn

import prctl

from runtime import podinit, state
from runtime.errors import ContainerError, explain, to_doc
from runtime.linux import syscalls
from runtime.linux.cgroups import Cgroup
from runtime.linux.channel import Channel
from runtime.linux.fds import Fd
from runtime.linux.namespaces import netlink_socket
from runtime.linux.procs import Process
from runtime.shim.birth import Birth, Outcome
from runtime.shim.loop import Loop
from runtime.shim.operations import Operations
from runtime.shim.sandbox import Sandbox
from runtime.shim.service import Service
from runtime.spec import SandboxSpec

LOG_MAX: Final = 1024 * 1024


class Shim:
    """Ties loop, sandbox, service and children together."""

    def __init__(self, spec: SandboxSpec, channel: Channel) -> None:
        self.loop = Loop(self._log)
        self.sandbox = Sandbox(spec, self.loop)
        self.operations = Operations(self)
        self.service = Service(self.loop, self.operations.handlers(), self.operations.disconnected)
        self.process = Process.current()
        self._children: dict[int, Callable[[int], None]] = {}
        self._born_connection = channel
        self._init_cgroup: Cgroup | None = None

    def begin(self) -> None:
        """Make the sandbox and answer; raises what made it impossible, and then nothing is left."""
        signals = syscalls.signalfd({signal.SIGCHLD})
        self.loop.watch(signals, lambda: self._reap(signals))
        self._record()
        self.sandbox.create()
        try:
            self.service.listen(f"{self.sandbox.spec.state_dir}/{state.SOCKET}")
            if self.sandbox.spec.pid == "pod":
                self._start_init()
            else:
                self._ready()
        except BaseException:
            self.sandbox.destroy()
            raise

    def _record(self) -> None:
        spec = self.sandbox.spec
        shared = [{"cgroup": self._init_cgroup_path()}] if spec.pid == "pod" else []
        layout = self.sandbox.layout.to_json()
        doc = {"shim": self.process.to_json(), "layout": layout, "cgroup_parent": spec.cgroup_parent, "own": shared}
        state.write_shim(spec.state_dir, doc)

    def _ready(self) -> None:
        connection = self.service.adopt(self._born_connection)
        fds = (Fd(netlink_socket().detach()),) if self.sandbox.spec.net == "pod" else ()
        connection.send({"re": 0, **self.introduction()}, fds)

    def introduction(self) -> dict[str, Any]:
        """What every new connection wants to know first."""
        return {"shim": self.process.to_json(), "netns": self.sandbox.netns_path}

    # The first process of a shared PID namespace.

    def _init_cgroup_path(self) -> str:
        return f"{self.sandbox.spec.cgroup_parent or '/nodeagent'}/{self.sandbox.spec.id}"

    def _start_init(self) -> None:
        staging = self.sandbox.spec.state_dir
        self._init_cgroup = Cgroup(self._init_cgroup_path(), self.sandbox.layout)
        self._init_cgroup.create()
        join = self._init_cgroup.prepare_join()
        birth = Birth(self.loop, "the pod's init", self._init_born)
        try:
            with Fd(self._init_cgroup.clone_fd()) as cgroup:
                flags = syscalls.CLONE_NEWNS | syscalls.CLONE_NEWPID
                birth.begin(lambda status: podinit.run_pod_init(staging, join, status), flags, cgroup.fileno())
        finally:
            join.close()
        self.expect(birth.pid, lambda status: birth.settle())
        self.sandbox.init = birth.pidfd

    def _init_born(self, outcome: Outcome) -> None:
        if outcome.error is None:
            self._ready()
            return
        self.end()
        _refuse(self._born_connection, outcome.error)
        self.loop.stop()

    # Children.

    def expect(self, pid: int, ended: Callable[[int], None]) -> None:
        """Call `ended` with the wait status when this child has been reaped."""
        self._children[pid] = ended

    def _reap(self, signals: int) -> None:
        os.read(signals, 128)
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            ended = self._children.pop(pid, None)
            if ended is not None:  # else an orphan of a container without a PID namespace of its own
                ended(status)

    # The end.

    def end(self) -> None:
        """Undo the sandbox; its containers are gone. Raises OSError for what could not be undone."""
        if self._init_cgroup is not None:
            self._init_cgroup.kill()
            self._init_cgroup.remove()
        self.sandbox.destroy()

    def _log(self, error: Exception) -> None:
        """Append an error to the shim's own log; there is nobody else to tell."""
        path = f"{self.sandbox.spec.state_dir}/{state.LOG}"
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            if os.fstat(fd).st_size < LOG_MAX:
                os.write(fd, f"{time.time():.3f} {type(error).__name__}: {explain(error)}\n".encode())
        finally:
            os.close(fd)


def run(doc: dict[str, Any], channel: Channel) -> NoReturn:
    """Be a shim: called in the zygote's fork, exits with the process."""
    try:
        spec = SandboxSpec.from_json(doc)
        _become_shim(spec.id, spec.state_dir)
        shim = Shim(spec, channel)
        shim.begin()
    except BaseException as error:  # noqa: BLE001 - this process must not return into the zygote
        _refuse(channel, error)
        os._exit(1)
    shim.loop.run()
    os._exit(0)


def _become_shim(id: str, state_dir: str) -> None:
    os.setsid()
    os.chdir(state_dir)  # says whose it is, even when all else is lost, and keeps nobody else's directory busy
    prctl.set_name(f"shim:{id[:8]}")
    prctl.set_proctitle(f"shim {id}")
    prctl.set_child_subreaper(1)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    null = os.open(os.devnull, os.O_RDWR)  # the daemon's stderr may be a pipe that somebody waits on
    for fd in range(3):
        os.dup2(null, fd)
    os.close(null)


def _refuse(channel: Channel, error: BaseException) -> None:
    if not isinstance(error, Exception):
        error = ContainerError(f"{type(error).__name__}: {error}")
    try:
        channel.send({"re": 0, "error": to_doc(error)})
    except OSError:
        return  # crid is gone, and asks the state directory when it comes back
