"""A shim's life: out of the zygote's fork, into a session of its own, a builder's namespaces, and the loop.

    zygote --fork--> live() --> its builder waits, as it does --> "create" from crid, with the pod's spec
                            --> the builder makes the sandbox --> {"re": 0} to crid --> loop until "stop"

Most of that is done before there is a pod: crid has one shim forked in advance (`runtime.spare`), which ends with
crid. From its pod on it outlives crid and the zygote. When crid is gone it goes on: outputs are copied, exits
recorded; whoever connects to shim.sock next is told.

The object is made in the zygote, before anybody knows for which pod: so all shims share it, and each of them
has copies of no more pages than it writes to.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final, NoReturn

import prctl

from runtime import podinit, recovery, state
from runtime.errors import ContainerError, explain, to_doc
from runtime.linux import syscalls
from runtime.linux.cgroups import Cgroup
from runtime.linux.channel import Channel
from runtime.linux.fds import Fd
from runtime.linux.messages import decode, encode
from runtime.linux.procs import Process
from runtime.shim import sandbox, userns
from runtime.shim.birth import Birth
from runtime.shim.builder import run_builder
from runtime.shim.home import Home
from runtime.shim.loop import Loop
from runtime.shim.operations import Operations
from runtime.shim.service import Service
from runtime.spec import FIRST_REQUEST

LOG_MAX: Final = 1024 * 1024
#: What the shim has in common with its builder, be it the pod's own or the node's.
_SHARED: Final = syscalls.CLONE_NEWNET | syscalls.CLONE_NEWUTS | syscalls.CLONE_NEWIPC


class Shim:
    """Ties loop, home, service and children together."""

    __slots__ = ("_children", "_crid", "_signals", "home", "loop", "operations", "service")

    def __init__(self, signals: int) -> None:
        """`signals` is an fd that tells of SIGCHLD, which is blocked."""
        self.loop = Loop(self._log)
        self.home = Home(self.loop)
        self.operations = Operations(self)
        self.service = Service(self.loop, self.operations.handlers(), self.operations.disconnected)
        self._children: dict[int, Callable[[int], None]] = {}
        self._signals = signals

    def live(self, crid: Channel) -> NoReturn:
        """Be the shim of the pod that crid will name: in the zygote's fork."""
        try:
            _become_shim()
            self.begin(crid)
            self.loop.run()
        except BaseException as error:  # noqa: BLE001 - this process must not return into the zygote
            crid.send_payload(_refusal(error))
        finally:
            os._exit(0)

    def begin(self, crid: Channel) -> None:
        """Get ready to be told of a pod. Raises OSError."""
        self._crid = crid
        ours, theirs = Channel.pair()
        pid, pidfd = fork_builder(ours, theirs)
        theirs.close()
        self.loop.open()
        self.loop.watch(self._signals, self._reap)
        self.expect(pid, self._builder_ended)
        self.loop.watch(crid.fileno(), partial(self._told, ours, Fd(pidfd)))

    def _told(self, channel: Channel, builder: Fd) -> None:
        """What the pod is; the builder makes its sandbox, and its answer goes to crid."""
        received = self._crid.recv_payload()
        if received is None:
            os._exit(0)  # crid is gone, and there is no pod
        try:
            self.loop.unwatch(self._crid.fileno())
            doc = decode(received[0])["spec"]
            self.home.settle(doc)
            settle_in(doc["id"], doc["state_dir"])
            if doc["runtime"] is not None:
                self._employ()
            channel.send_payload(received[0])
            self.loop.watch(channel.fileno(), partial(self._built, channel, builder))
        except Exception as error:  # noqa: BLE001 - there is no pod yet that would outlive this
            self._refuse(_refusal(error))

    def _employ(self) -> None:
        """Have the containers made by an external runtime."""
        from runtime.external.operations import ExternalOperations  # memory that no other pod's shim shall pay for

        self.operations = ExternalOperations(self)
        self.service = Service(self.loop, self.operations.handlers(), self.operations.disconnected)

    def _builder_ended(self, status: int) -> None:
        """What there was to say it has said itself; but without it a shim is of no use to a pod that is yet to come."""
        if not self.home.doc:
            os._exit(1)

    def _built(self, channel: Channel, builder: Fd) -> None:
        """The builder has made the sandbox and waits until it has been entered; or it has failed and undone it."""
        self.loop.unwatch(channel.fileno())
        received = channel.recv_payload()
        payload, fds = received or (_refusal(ContainerError("the sandbox's builder was killed")), [])
        try:
            if fds:
                syscalls.setns(builder.fileno(), _SHARED)
            channel.close()
            builder.close()
            if not fds:
                self._give_up(payload)
            elif self.home.pid == "pod":
                self._start_init(payload, fds)
            else:
                self._ready(payload, fds)
        except Exception as error:  # noqa: BLE001 - whatever it was, crid waits for an answer
            self._give_up(_refusal(error))

    def _ready(self, payload: bytes, fds: list[int]) -> None:
        listener, *netlink = fds
        self.service.listen(listener)
        self.service.adopt(self._crid).send_payload(payload, tuple(map(Fd, netlink)))

    def _give_up(self, payload: bytes) -> None:
        try:
            self.end()
        except Exception as error:  # noqa: BLE001 - crid ends what is left; what it is told is why there is anything
            self.loop.report(error)
        self._refuse(payload)

    def _refuse(self, payload: bytes) -> NoReturn:
        """Tell crid why there will be no pod; crid may be gone."""
        try:
            self._crid.send_payload(payload)
        finally:
            os._exit(1)

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
            if self.home.userns is None:
                body = partial(podinit.run_pod_init, self.home.state_dir, cgroup, podinit.NOBODY)
                birth.begin(body, syscalls.CLONE_NEWNS | syscalls.CLONE_NEWPID, cgroup_fd.fileno())
            else:
                userns.bear_pod_init(self.home, birth, cgroup, cgroup_fd.fileno(), self.home.userns)
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

    def _reap(self) -> None:
        os.read(self._signals, 128)
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            ended = self._children.pop(pid, None)
            if ended is None:
                ended = partial(self.operations.orphaned, pid)
            self.loop.attempt(partial(ended, status))

    # The end.

    def end(self) -> None:
        """Undo the sandbox and what is left of its containers. Raises OSError for what could not be undone."""
        directory = self.home.state_dir
        recovery.remove_cgroups(directory, self.home.layout, state.read_shim(directory).get("own", ()))
        sandbox.Sandbox(self.home.spec).destroy()

    def _log(self, error: Exception) -> None:
        """Append an error to the shim's own log; there is nobody else to tell, and no way where that fails."""
        path = f"{self.home.state_dir}/{state.LOG}"
        line = f"{time.time():.3f} {type(error).__name__}: {explain(error)}\n"
        with contextlib.suppress(OSError):  # a full disk must not end the shim, and its pod with it
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                if os.fstat(fd).st_size < LOG_MAX:
                    os.write(fd, line.encode())
            finally:
                os.close(fd)


def fork_builder(ours: Channel, theirs: Channel) -> tuple[int, int]:
    """A process that makes the sandbox which `ours` tells it of: its pid and a pidfd. Raises OSError."""
    pid, pidfd = syscalls.clone3(0)
    if not pid:
        ours.close()
        run_builder(theirs)
    return pid, pidfd


def _become_shim() -> None:
    os.setsid()
    _call_oneself(b"shim", "shim, spare")
    syscalls.set_child_subreaper()
    null = os.open(os.devnull, os.O_RDWR)  # the daemon's stderr may be a pipe that somebody waits on
    for fd in range(3):
        os.dup2(null, fd)
    os.close(null)


def settle_in(id: str, state_dir: str) -> None:
    """Say whose shim this is, even when all else is lost; no other directory is kept busy. Raises OSError."""
    os.chdir(state_dir)
    _call_oneself(b"shim:" + id[:8].encode(), f"shim {id}")


def _call_oneself(name: bytes, title: str) -> None:
    comm = os.open("/proc/self/comm", os.O_WRONLY)
    os.write(comm, name)
    os.close(comm)
    prctl.set_proctitle(title)


def _refusal(error: BaseException) -> bytes:
    return encode({"re": FIRST_REQUEST, "error": to_doc(error)})
