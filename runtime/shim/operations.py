"""What can be asked of a shim, one method each. The names are the protocol; crid's side is `runtime.client`."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Final

from runtime import state
from runtime.container import Container
from runtime.errors import InvalidSpec, NotFound
from runtime.linux import namespaces
from runtime.linux.fds import Fd
from runtime.shim.birth import Outcome
from runtime.shim.execs import ExecProcess
from runtime.shim.service import Connection, Handler, Request
from runtime.spec import ContainerSpec, ExecSpec

if TYPE_CHECKING:
    from runtime.shim.main import Shim

STOP_SECONDS: Final = 10.0
STREAMS: Final = ("stdin", "stdout", "stderr")
_PLAIN: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")


class Operations:
    """Handlers of requests, and the containers and execs that they are about."""

    def __init__(self, shim: Shim) -> None:
        self._shim = shim
        self._containers: dict[str, Container] = {}
        self._execs: dict[str, tuple[ExecProcess, Connection]] = {}
        self._exec_numbers = itertools.count(1)
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
        }

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
        if namespaces.sysctl_namespace(name) != "net" or self._shim.sandbox.spec.net != "pod":
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
            for container in self._containers.values():
                container.forget()
            self._shim.end()
        except OSError as error:
            request.fail(error)  # crid tries again; what is left is on disk
            return
        request.answer()
        self._shim.loop.stop()

    # Containers.

    def _find(self, request: Request) -> Container:
        id = request.doc.get("container", "")
        if id not in self._containers:
            raise NotFound(f"container {id!r} is not in sandbox {self._shim.sandbox.spec.id}")
        return self._containers[id]

    def _start(self, request: Request) -> None:
        spec = ContainerSpec.from_json(request.doc["spec"])
        if self._stopping:
            raise NotFound(f"sandbox {self._shim.sandbox.spec.id} is being stopped")
        if not spec.id or not _PLAIN.issuperset(spec.id) or spec.id[0] == ".":
            raise InvalidSpec(f"container id {spec.id!r} is not made of letters, digits, dots, dashes and underscores")
        if spec.id in self._containers:
            raise InvalidSpec(f"container {spec.id} has been started before")
        target = self._target(spec)
        container = Container(self._shim.sandbox, spec, self._published)
        container.start(lambda error: self._started(request, container, error), target)
        self._containers[spec.id] = container
        self._shim.expect(container.pid, container.ended)

    def _target(self, spec: ContainerSpec) -> Fd | None:
        if not spec.pid_target:
            return None
        target = self._containers.get(spec.pid_target)
        if target is None or target.pidfd is None or not target.running:
            raise NotFound(f"target container {spec.pid_target} of container {spec.id} is not running")
        return target.pidfd

    def _started(self, request: Request, container: Container, error: Exception | None) -> None:
        if error is None:
            request.answer(pid=container.pid, started_at=container.started_at)
            return
        del self._containers[container.spec.id]
        request.fail(error)
        self._continue_stop()

    def _published(self, container: Container) -> None:
        self._shim.service.tell({"event": "exited", **(container.exit or {})})
        container.sweep()
        for request in self._removing.pop(container.spec.id, ()):
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
        container = self._containers.get(request.doc.get("container", ""))
        if container is None:
            state.forget_container(self._shim.sandbox.spec.state_dir, str(request.doc.get("container", "-")))
            request.answer()
        elif container.gone:
            container.forget()
            del self._containers[container.spec.id]
            request.answer()
        else:
            self._removing.setdefault(container.spec.id, []).append(request)
            container.kill()

    # Streams.

    def _attach(self, request: Request) -> None:
        container = self._find(request)
        if not container.running:
            raise NotFound(f"container {container.spec.id} is not running")
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
            raise NotFound(f"container {container.spec.id} is not running")
        container.console.log.reopen()
        request.answer()

    # Execs. They belong to the connection that asked for them: without it nobody can learn how they end.

    def _exec(self, request: Request) -> None:
        spec = ExecSpec.from_json(request.doc["spec"])
        if spec.id in self._execs:
            raise InvalidSpec(f"exec {spec.id} is running already")
        given = dict(zip(request.doc["streams"], request.fds, strict=True))
        streams = [given[name].fileno() if name in given else -1 for name in STREAMS]
        process = ExecProcess(self._shim.sandbox, self._find(request), spec, next(self._exec_numbers))
        process.start(
            (streams[0], streams[1], streams[2]),
            lambda outcome: self._exec_started(request, process, outcome),
            self._exec_ended,
        )
        self._execs[spec.id] = process, request.connection
        self._shim.expect(process.pid, process.reaped)

    def _exec_started(self, request: Request, process: ExecProcess, outcome: Outcome) -> None:
        if outcome.error is None:
            request.answer((outcome.master,) if outcome.master else (), pid=process.pid)
            return
        del self._execs[process.id]
        request.fail(outcome.error)

    def _exec_ended(self, process: ExecProcess) -> None:
        _, connection = self._execs.pop(process.id)
        if connection.open and process.exit_code is not None:
            connection.send({"event": "exec_exited", "exec": process.id, "exit_code": process.exit_code})

    def _exec_kill(self, request: Request) -> None:
        process, _ = self._execs.get(request.doc["exec"], (None, None))
        if process is not None:
            process.kill()
        request.answer()

    def disconnected(self, connection: Connection) -> None:
        """A connection is gone: so are the callers of its execs."""
        for process, owner in self._execs.values():
            if owner is connection:
                process.kill()
