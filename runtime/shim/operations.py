"""What can be asked of a shim, one method each. The names are the protocol; crid's side is `runtime.client`."""

from __future__ import annotations

import errno
import itertools
from functools import partial
from typing import TYPE_CHECKING, Final

from runtime import recovery
from runtime.container import Container
from runtime.errors import InvalidSpec, NotFound
from runtime.linux import namespaces
from runtime.linux.fds import Fd
from runtime.shim.dumps import Dump
from runtime.shim.execs import FIRST_WAIT, LAST_WAIT, ExecProcess
from runtime.shim.restored import RestoredContainer
from runtime.shim.service import Connection, Handler, Request

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Protocol

    from runtime.shim.home import Home
    from runtime.shim.loop import Loop
    from runtime.shim.service import Service

    class Shim(Protocol):
        """The shim as its operations see it (`runtime.shim.main`); a word of typing, which no pod pays memory for."""

        home: Home
        loop: Loop
        service: Service

        def introduction(self) -> dict[str, Any]:
            """What every connection wants to know first."""

        def expect(self, pid: int, ended: Callable[[int], None]) -> None:
            """Call `ended` with the wait status when this child has been reaped."""

        def end(self) -> None:
            """Undo the sandbox. Raises OSError for what could not be undone."""


STOP_SECONDS: Final = 10.0
STREAMS: Final = ("stdin", "stdout", "stderr")


class Operations:
    """Handlers of requests, and the containers and execs that they are about."""

    __slots__ = ("_containers", "_dumps", "_exec_numbers", "_execs", "_removing", "_shim", "_stopping")

    def __init__(self, shim: Shim) -> None:
        self._shim = shim
        self._containers: dict[str, Container] = {}
        self._execs: dict[str, tuple[ExecProcess, Connection]] = {}
        self._exec_numbers = itertools.count(1)
        self._dumps = 0
        self._stopping: Request | None = None
        self._removing: dict[str, list[Request]] = {}

    def handlers(self) -> dict[str, Handler]:
        """By the name of the operation."""
        return {
            "hello": self._hello,
            "netlink": self._netlink,
            "sysctl_net": self._sysctl_net,
            "tcp_socket": self._tcp_socket,
            "stop": self._stop,
            "start": self._start,
            "status": self._status,
            "signal": self._signal,
            "kill": self._kill,
            "remove": self._remove,
            "attach": self._attach,
            "resize": self._resize,
            "close_stdin": self._close_stdin,
            "reopen_log": self._reopen_log,
            "exec": self._exec,
            "exec_kill": self._exec_kill,
            "criu": self._criu,
            "restore": self._restore,
            "arrived": self._arrived,
        }

    def orphaned(self, pid: int, status: int) -> None:
        """A process ended whose parent was not the shim: of a container without a PID namespace of its own."""

    # The pod.

    def _hello(self, request: Request) -> None:
        statuses = [container.status() for container in self._containers.values()]
        exits = [container.exit for container in self._containers.values() if container.exit is not None]
        request.answer(**self._shim.introduction(), containers=statuses, exits=exits)

    def _netlink(self, request: Request) -> None:
        request.answer((Fd(namespaces.netlink_socket().detach()),))

    def _tcp_socket(self, request: Request) -> None:
        request.answer((Fd(namespaces.tcp_socket(int(request.doc["family"])).detach()),))

    def _sysctl_net(self, request: Request) -> None:
        name, value = str(request.doc["name"]), str(request.doc["value"])
        if namespaces.sysctl_namespace(name) != "net" or self._shim.home.spec.net != "pod":
            raise InvalidSpec(f"sysctl {name!r} does not belong to the pod's network")
        namespaces.set_sysctls([(name, value)])
        request.answer()

    def _stop(self, request: Request) -> None:
        self._stopping = request
        for container in self._containers.values():
            container.kill()
        self._shim.loop.call_later(STOP_SECONDS, self._finish_stop)
        self._continue_stop()

    def _continue_stop(self) -> None:
        if self._stopping and all(container.gone for container in self._containers.values()):
            self._finish_stop()

    def _finish_stop(self) -> None:
        request, self._stopping = self._stopping, None
        if request is None:
            return
        try:
            self._shim.end()
        except Exception as error:  # noqa: BLE001 - whatever it is, crid tries again; what is left is on disk
            request.fail(error)
            return
        request.answer()
        self._shim.loop.stop()

    # Containers.

    def _find(self, request: Request) -> Container:
        id = request.doc.get("container", "")
        if id not in self._containers:
            raise NotFound(f"container {id!r} is not in sandbox {self._shim.home.spec.id}")
        return self._containers[id]

    def _start(self, request: Request) -> None:
        doc, id = request.doc, self._fresh(request)
        target = self._target(id, doc.get("pid_target"))
        container = Container(self._shim.home, doc, self._published, request.fds[0] if request.fds else None)
        container.start(request.blob, partial(self._started, request, container), target)
        self._containers[id] = container
        self._shim.expect(container.pid, container.ended)

    def _fresh(self, request: Request) -> str:
        id: str = request.doc["container"]
        if self._stopping:
            raise NotFound(f"sandbox {self._shim.home.spec.id} is being stopped")
        if id in self._containers:
            raise InvalidSpec(f"container {id} has been started before")
        self._shim.home.watched = self._shim.home.watched or bool(request.doc.get("traces"))
        return id

    def _target(self, id: str, target_id: str | None) -> Fd | None:
        if not target_id:
            return None
        target = self._containers.get(target_id)
        if target is None or target.pidfd is None or not target.running:
            raise NotFound(f"target container {target_id} of container {id} is not running")
        return target.pidfd

    def _started(self, request: Request, container: Container, error: bytes) -> None:
        if not error:
            request.answer(pid=container.pid, started_at=container.started_at)
            return
        request.fail_with(error)
        self._never_arrived(container)

    def _published(self, container: Container) -> None:
        self._shim.service.tell({"event": "exited", **(container.exit or {})})
        self._swept(container)

    def _swept(self, container: Container) -> None:
        container.sweep()
        for request in self._removing.pop(container.id, ()):
            self._shim.service.handle(request)
        self._continue_stop()

    def _status(self, request: Request) -> None:
        request.answer(status=self._find(request).status())

    def _signal(self, request: Request) -> None:
        self._find(request).signal(int(request.doc["signum"]))
        request.answer()

    def _kill(self, request: Request) -> None:
        container = self._containers.get(request.doc.get("container", ""))
        if container is not None:
            container.kill()
        request.answer()

    def _remove(self, request: Request) -> None:
        id = request.doc["container"]
        container = self._containers.get(id)
        if container is None or container.gone:
            try:
                recovery.remove_container(self._shim.home.state_dir, id, self._shim.home.layout, 0)
            except OSError as error:
                return self._remove_later(request, error)
            self._containers.pop(id, None)
            request.answer()
        else:
            self._removing.setdefault(container.id, []).append(request)
            container.kill()
        return None

    def _remove_later(self, request: Request, error: OSError) -> None:
        """Its cgroup is busy until its last process is reaped, which the loop must not wait for: try again."""
        wait = request.doc.get("wait", FIRST_WAIT)
        if error.errno != errno.EBUSY or wait > LAST_WAIT:
            raise error
        request.doc["wait"] = wait * 2
        self._shim.loop.call_later(wait, partial(self._shim.service.handle, request))

    # Streams.

    def _attach(self, request: Request) -> None:
        container = self._find(request)
        if not container.running:
            raise NotFound(f"container {container.id} is not running")
        pipes = container.console.attach()
        request.answer(tuple(pipes.values()), streams=list(pipes))

    def _resize(self, request: Request) -> None:
        self._find(request).console.resize(int(request.doc["rows"]), int(request.doc["columns"]))
        request.answer()

    def _close_stdin(self, request: Request) -> None:
        self._find(request).console.close_stdin()
        request.answer()

    def _reopen_log(self, request: Request) -> None:
        container = self._find(request)
        if container.gone:
            raise NotFound(f"container {container.id} is not running")
        container.console.log.reopen()
        request.answer()

    # Execs. They belong to the connection that asked for them: without it nobody can learn how they end.

    def _exec(self, request: Request) -> None:
        id, streams = self._exec_asked(request)
        number = next(self._exec_numbers)
        process = ExecProcess(self._shim.home, self._find(request), id, number, self._shim.expect)
        started = partial(self._exec_started, request, process)
        process.start(request.blob, streams, started, self._exec_ended)
        self._execs[id] = process, request.connection

    def _exec_asked(self, request: Request) -> tuple[str, tuple[int, int, int]]:
        """The id of a new exec, and its streams."""
        id = request.doc["exec"]
        if id in self._execs:
            raise InvalidSpec(f"exec {id} is running already")
        given = dict(zip(request.doc["streams"], request.fds, strict=True))
        stdin, stdout, stderr = (given[name].fileno() if name in given else -1 for name in STREAMS)
        return id, (stdin, stdout, stderr)

    def _exec_started(self, request: Request, process: ExecProcess, error: bytes, master: Fd | None) -> None:
        if not error:
            request.answer((master,) if master else (), pid=process.pid)
            return
        del self._execs[process.id]
        request.fail_with(error)

    def _exec_ended(self, process: ExecProcess) -> None:
        _, connection = self._execs.pop(process.id)
        if connection.open and process.exit_code is not None:
            connection.send({"event": "exec_exited", "exec": process.id, "exit_code": process.exit_code})

    def _exec_kill(self, request: Request) -> None:
        process, _ = self._execs.get(request.doc["exec"], (None, None))
        if process is not None:
            process.kill()
        request.answer()

    # Checkpoints: criu is borne here, and crid talks to it.

    def _criu(self, request: Request) -> None:
        ended = partial(self._dumped, request.connection)
        dump = Dump(self._shim.home.loop, partial(self._dumping, request), ended)
        self._shim.expect(dump.begin(request.doc["program"], request.fds[0], request.doc["seconds"]), dump.reaped)
        self._dumps += 1

    def _dumping(self, request: Request, dump: Dump, error: bytes) -> None:
        if error:
            request.fail_with(error)
        else:
            request.answer(pid=dump.pid)

    def _dumped(self, connection: Connection) -> None:
        self._dumps -= 1
        if not connection.open:  # criu leaves paused what it found paused
            self._resume()

    def _restore(self, request: Request) -> None:
        id = self._fresh(request)
        socket, *log = request.fds
        container = RestoredContainer(self._shim.home, request.doc, self._published, log[0] if log else None)
        started = partial(self._restoring, request, container)
        criu = container.restore(request.blob, socket, started, self._never_arrived)
        self._containers[id] = container
        self._shim.expect(criu, container.criu_ended)

    def _restoring(self, request: Request, container: RestoredContainer, error: bytes) -> None:
        if not error:
            request.answer(pid=container.criu)
            return
        request.fail_with(error)
        self._never_arrived(container)

    def _never_arrived(self, container: Container) -> None:
        self._containers.pop(container.id, None)
        for request in self._removing.pop(container.id, ()):
            self._shim.service.handle(request)
        self._continue_stop()

    def _arrived(self, request: Request) -> None:
        container = self._find(request)
        if not isinstance(container, RestoredContainer) or container.started_at:
            raise InvalidSpec(f"container {container.id} is not being restored")
        container.arrived(int(request.doc["pid"]))
        self._shim.expect(container.pid, container.ended)
        request.answer(pid=container.pid, started_at=container.started_at)

    def disconnected(self, connection: Connection) -> None:
        """A connection is gone: so are the callers of its execs."""
        for process, owner in self._execs.values():
            if owner is connection:
                process.kill()
        self._resume()

    def _resume(self) -> None:
        """Nobody is there who would let go on what crid has paused (`runtime.watchers`, checkpoints of pods).

        Not while criu is at it, which was told that they are paused and lets go and holds them by itself.
        """
        for container in self._containers.values() if not self._dumps else ():
            container.resume()
