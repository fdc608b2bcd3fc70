"""What can be asked of a shim whose containers an external runtime makes: the same (`runtime.shim.operations`).

Only how it is done differs; beside that, the runtime wants to be told of new limits (`update`), and signals go
through it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, cast

from runtime.container import Container
from runtime.external.containers import ExternalContainer
from runtime.external.execs import ExternalExec
from runtime.shim.operations import Operations
from runtime.shim.service import Handler, Request

if TYPE_CHECKING:
    from runtime.shim.operations import Shim

ORPHANS_MAX: Final = 1024


class ExternalOperations(Operations):
    """Handlers of requests to a shim with an external runtime."""

    def __init__(self, shim: Shim) -> None:
        super().__init__(shim)
        self._orphans: dict[int, int] = {}

    def handlers(self) -> dict[str, Handler]:
        """By the name of the operation."""
        return {**super().handlers(), "update": self._update}

    # Children that become ours when a run of the runtime ends.

    def orphaned(self, pid: int, status: int) -> None:
        """A process ended that nobody expects: an exec may be over before the command that has started it."""
        if len(self._orphans) >= ORPHANS_MAX:
            self._orphans.pop(next(iter(self._orphans)))
        self._orphans[pid] = status

    def _expect(self, pid: int, ended: Callable[[int], None]) -> None:
        """Call back when `pid` ends, or at once when it has: pids are given out in turn, so this is the latest one."""
        status = self._orphans.pop(pid, None)
        if status is not None:
            ended(status)
        else:
            self._shim.expect(pid, ended)

    # Containers.

    def _start(self, request: Request) -> None:
        doc, id = request.doc, self._fresh(request)
        target = self._target(id, doc.get("pid_target"))
        container = ExternalContainer(self._shim.home, self._expect, doc, self._published)
        container.start(request.blob, functools.partial(self._started, request, container), target)
        self._containers[id] = container

    def _published(self, container: Container) -> None:
        """Its exit is on disk: tell it, and let the runtime forget the container before we do."""
        self._shim.service.tell({"event": "exited", **(container.exit or {})})
        cast(ExternalContainer, container).delete(functools.partial(self._swept, container))

    def _signal(self, request: Request) -> None:
        self._external(request).signal_through(int(request.doc["signum"]), functools.partial(_reply, request))

    def _update(self, request: Request) -> None:
        self._external(request).update(request.blob, functools.partial(_reply, request))

    def _external(self, request: Request) -> ExternalContainer:
        return cast(ExternalContainer, self._find(request))

    # Execs.

    def _exec(self, request: Request) -> None:
        id, streams = self._exec_asked(request)
        process: Any = ExternalExec(self._external(request), request.doc, next(self._exec_numbers), self._expect)
        started = functools.partial(self._exec_started, request, process)
        process.start(request.blob, streams, started, self._exec_ended)
        self._execs[id] = process, request.connection


def _reply(request: Request, error: bytes) -> None:
    if error:
        request.fail_with(error)
    else:
        request.answer()
