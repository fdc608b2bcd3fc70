"""StartContainer: the one step that runs something."""

from __future__ import annotations

import logging
import os
import time

from cri.proto import api_pb2 as api
from cri.server.checkpoint import workplace
from cri.server.checkpoint.revive import revive
from cri.server.daemon import Daemon, pod_of
from cri.server.errors import CriFault, WrongState, words_of
from cri.server.pods import Container
from cri.server.specs.sources import look
from runtime.client import ContainerError, ShimLost, Started
from runtime.linux.cgroups import CgroupError
from runtime.linux.database import DatabaseError
from runtime.linux.failpoints import failpoint
from runtime.linux.ledger import Effect

log = logging.getLogger("crid")

FAILPOINTS = ("crid.start_container.before_start", "crid.start_container.before_record")

#: Exit code of a container whose program could not be executed; the peers report the same.
START_ERROR_EXIT_CODE = 128


async def start_container(daemon: Daemon, request: api.StartContainerRequest) -> api.StartContainerResponse:
    """RUNNING on return. A container that could not be started is EXITED, with the reason in its status.

    It stays CREATED, and can be started, where only writing that down failed (DatabaseError).
    """
    container = daemon.store.containers.get(request.container_id)
    async with daemon.store.containers.held(container):
        _check(container)
        await _start(daemon, container)
    return api.StartContainerResponse()


def _check(container: Container) -> None:
    if container.state != api.CONTAINER_CREATED:
        state = api.ContainerState.Name(container.state)
        raise WrongState(
            f"container {container.id[:13]} ({container.name}) is {state}; only a created one can be started"
        )
    if not container.sandbox.ready:
        raise WrongState(
            f"sandbox {container.sandbox.id[:13]} of pod {container.sandbox.name} is not ready; run a new one"
        )


async def _run(daemon: Daemon, container: Container) -> Started:
    if not workplace.waits(daemon, container.id):
        return await pod_of(container.sandbox).start_container(container.spec)
    place = workplace.place_of(daemon, container.id)
    return await revive(container, await daemon.criu.program(), place)


def _make_directory(path: str) -> None:
    os.makedirs(path, 0o755, exist_ok=True)


async def _start(daemon: Daemon, container: Container) -> None:
    daemon.exits.forget_try(container)
    try:
        await daemon.nri.start(container)
        if container.spec.log_path:
            await look(container.sandbox.id, _make_directory, os.path.dirname(container.spec.log_path))
        daemon.ledger.record(Effect("cgroup", container.cgroup, container.sandbox.id))
        failpoint("crid.start_container.before_start")
        started = await _run(daemon, container)
        failpoint("crid.start_container.before_record")
        container.started_at, container.pid = started.started_at, started.pid
        daemon.store.save_state(container)
    except (CriFault, ContainerError, CgroupError, DatabaseError, OSError) as error:
        why = words_of(error)
        error.add_note(f"while starting container {container.id[:13]} ({container.name})")
        if isinstance(error, DatabaseError | TimeoutError):
            await _take_back(daemon, container, error)
        if not isinstance(error, DatabaseError | ShimLost):  # there nothing can be written, here the pod ends
            container.started_at = time.time_ns()
            daemon.exits.finish(container, START_ERROR_EXIT_CODE, container.started_at, "StartError", why)
        raise
    daemon.events.publish(api.CONTAINER_STARTED_EVENT, container.id, container.sandbox)
    await daemon.nri.started(container)
    daemon.exits.started(container)
    await _discard_checkpoint(daemon, container)


async def _take_back(daemon: Daemon, container: Container, reason: Exception) -> None:
    """It may run, or a shim that is slow starts it yet; the removal comes after that."""
    container.started_at = container.pid = 0
    try:
        if container.sandbox.pod is not None:
            await container.sandbox.pod.remove_container(container.id)
        daemon.ledger.strike(("cgroup", container.cgroup))
    except (ContainerError, DatabaseError, OSError) as error:
        reason.add_note(f"taking it back failed as well: {words_of(error)}")
    daemon.exits.forget_try(container)


async def _discard_checkpoint(daemon: Daemon, container: Container) -> None:
    """Its processes have come out of it, and run whatever becomes of it; the next start of crid tries again."""
    try:
        await workplace.discard(daemon, container.id)
    except (DatabaseError, OSError):
        log.exception("the checkpoint of container %s (%s) could not be removed", container.id, container.name)
