"""A shim's life: out of the zygote's fork, into a session of its own, a builder's namespaces, and the loop.

    zygote --fork--> run() --> builder makes the sandbox --> {"re": 0} to crid --> loop until "stop"

It outlives crid and the zygote. When crid is gone it goes on: outputs are copied, exits recorded; whoever connects
to shim.sock next is told.
"""

from __future__ import annotations

import functools
import json
import os
import time
from collections.abc import Callable
from typing import Any, Final, NoReturn

import prctl

from runtime import podinit, recovery, state
from runtime.errors import ContainerError, explain, to_doc
from runtime.linux import syscalls
from runtime.linux.cgroups import Cgroup
from runtime.linux.channel import Channel
from runtime.linux.fds import Fd
from runtime.linux.messages import encode
from runtime.linux.procs import Process
from runtime.shim import sandbox, userns
from runtime.shim.birth import Birth
from runtime.shim.builder import FIRST_REQUEST, run_builder
from runtime.shim.home import Home
from runtime.shim.loop import Loop
from runtime.shim.operations import Operations
from runtime.shim.service import Service
from runtime.spec import SandboxSpec

LOG_MAX: Final = 1024 * 1024


class Shim:
    """Ties loop, home, service and children together."""

    def __init__(self, spec: SandboxSpec, crid: Channel, signals: int) -> None:
        """`crid` is where to answer first; `signals` an fd that tells of SIGCHLD."""
        self.loop = Loop(self._log)
        self.home = Home(spec, self.loop)
        self.operations = _operations(self)
        self.service = Service(self.loop, self.operations.handlers(), self.operations.disconnected)
        self._crid = crid
        self._children: dict[int, Callable[[int], None]] = {}
        self.loop.watch(signals, functools.partial(self._reap, signals))

    def begin(self) -> None:
        """Fork the builder; its answer goes to crid. Raises OSError."""
        ours, theirs = Channel.pair()
        pid = os.fork()
        if not pid:
            ours.close()
            run_builder(self.home.spec, theirs)
        theirs.close()
        self.expect(pid, lambda status: None)
        builder = Fd(os.pidfd_open(pid))
        self.loop.watch(ours.fileno(), lambda: self._built(ours, builder))

    def _built(self, channel: Channel, builder: Fd) -> None:
        """The builder has made the sandbox and waits until it has been entered; or it has failed and undone it."""
        self.loop.unwatch(channel.fileno())
        received = channel.recv_payload()
        payload, fds = received or (_refusal(ContainerError("the sandbox's builder was killed")), [])
        try:
            if fds and (flags := sandbox.own_flags(self.home.spec)):
                syscalls.setns(builder.fileno(), flags)
            channel.close()
            builder.close()
            if not fds:
                self._give_up(payload)
            elif self.home.spec.pid == "pod":
                self._start_init(payload, fds)
            else:
                self._ready(payload, fds)
        except OSError as error:
            self._give_up(_refusal(error))

    def _ready(self, payload: bytes, fds: list[int]) -> None:
        listener, *netlink = fds
        self.service.listen(listener)
        self.service.adopt(self._crid).send_payload(payload, tuple(Fd(fd) for fd in netlink))

    def _give_up(self, payload: bytes) -> None:
        self.end()
        try:
            self._crid.send_payload(payload)
        finally:
            self.loop.stop()

    def introduction(self) -> dict[str, Any]:
        """What every later connection wants to know first."""
        netns = sandbox.Sandbox(self.home.spec).netns_path
        return {"shim": Process.current().to_json(), "netns": netns}

    def _start_init(self, payload: bytes, fds: list[int]) -> None:
        """The first process of a shared PID namespace; crid is answered when it is there."""
        cgroup = Cgroup(sandbox.init_cgroup(self.home.spec), self.home.layout)
        cgroup.create()
        birth = Birth(self.loop, "the pod's init", lambda error, _: self._init_born(error, payload, fds))
        with Fd(cgroup.clone_fd()) as cgroup_fd:
            if self.home.spec.userns is None:
                body = functools.partial(podinit.run_pod_init, self.home.spec.state_dir, cgroup, podinit.NOBODY)
                birth.begin(body, syscalls.CLONE_NEWNS | syscalls.CLONE_NEWPID, cgroup_fd.fileno())
            else:
                userns.bear_pod_init(self.home, birth, cgroup, cgroup_fd.fileno(), self.home.spec.userns)
        self.expect(birth.pid, lambda status: birth.settle())
        self.home.init = birth.pidfd

    def _init_born(self, error: bytes, payload: bytes, fds: list[int]) -> None:
        if error:
            self._give_up(encode({"re": FIRST_REQUEST, "error": json.loads(error)}))
        else:
            self._ready(payload, fds)

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
            self._children.pop(pid, functools.partial(self.operations.orphaned, pid))(status)

    # The end.

    def end(self) -> None:
        """Undo the sandbox and what is left of its containers. Raises OSError for what could not be undone."""
        recovery.remove_cgroups(self.home.spec.state_dir, self.home.layout)
        sandbox.Sandbox(self.home.spec).destroy()

    def _log(self, error: Exception) -> None:
        """Append an error to the shim's own log; there is nobody else to tell."""
        path = f"{self.home.spec.state_dir}/{state.LOG}"
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            if os.fstat(fd).st_size < LOG_MAX:
                os.write(fd, f"{time.time():.3f} {type(error).__name__}: {explain(error)}\n".encode())
        finally:
            os.close(fd)


def _operations(shim: Shim) -> Operations:
    if shim.home.spec.runtime is None:
        return Operations(shim)
    from runtime.external.operations import ExternalOperations  # memory that no other pod's shim shall pay for

    return ExternalOperations(shim)


def run(doc: dict[str, Any], crid: Channel, signals: int) -> NoReturn:
    """Be a shim: called in the zygote's fork, with SIGCHLD blocked; exits with the process."""
    try:
        spec = SandboxSpec.from_json(doc)
        _become_shim(spec.id, spec.state_dir)
        shim = Shim(spec, crid, signals)
        shim.begin()
    except BaseException as error:  # noqa: BLE001 - this process must not return into the zygote
        crid.send_payload(_refusal(error))
        os._exit(1)
    shim.loop.run()
    os._exit(0)


def _become_shim(id: str, state_dir: str) -> None:
    os.setsid()
    os.chdir(state_dir)  # says whose it is, even when all else is lost, and keeps nobody else's directory busy
    prctl.set_name(f"shim:{id[:8]}")
    prctl.set_proctitle(f"shim {id}")
    prctl.set_child_subreaper(1)
    null = os.open(os.devnull, os.O_RDWR)  # the daemon's stderr may be a pipe that somebody waits on
    for fd in range(3):
        os.dup2(null, fd)
    os.close(null)


def _refusal(error: BaseException) -> bytes:
    return encode({"re": FIRST_REQUEST, "error": to_doc(error)})
