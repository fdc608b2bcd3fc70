"""StopContainer: the stop signal, then SIGKILL to all of the container once the grace period is over.

Any number of calls may wait at once. There is one deadline per container, and each call can only bring it forward:
a later call with a shorter timeout wins, a later one with a longer timeout changes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging

from cri.proto import api_pb2 as api
from cri.server.daemon import Daemon, pod_of
from cri.server.errors import TookTooLong
from cri.server.pods import Container
from runtime.client import ContainerError, NotFound

log = logging.getLogger("crid")

#: How long SIGKILL may take: a process that hangs in the kernel (dead NFS server) survives it.
KILL_SECONDS = 30.0

_killers: set[asyncio.Task[None]] = set()


async def stop_container(daemon: Daemon, request: api.StopContainerRequest) -> api.StopContainerResponse:
    """Idempotent: an unknown container, or one that does not run, is success (api.proto, StopContainer)."""
    container = daemon.store.containers.find(request.container_id)
    if container is None or not container.running:
        return api.StopContainerResponse()
    if request.timeout <= 0:
        await kill_and_wait(daemon, container)
    else:
        await _stop_gently(container, float(request.timeout))
    await daemon.nri.settled(container)
    return api.StopContainerResponse()


async def _stop_gently(container: Container, grace: float) -> None:
    _bring_deadline_forward(container, grace)
    with contextlib.suppress(NotFound):  # it has exited meanwhile; the event is on its way
        await pod_of(container.sandbox).signal(container.id, container.stop_signal)
    await _await_exit(container, grace + KILL_SECONDS)


def _bring_deadline_forward(container: Container, grace: float) -> None:
    loop = asyncio.get_running_loop()
    when = loop.time() + grace
    if container.kill_timer is not None:
        if container.kill_timer.when() <= when:
            return
        container.kill_timer.cancel()
    container.kill_timer = loop.call_at(when, _kill_later, container)


def _kill_later(container: Container) -> None:
    """The deadline has passed; nobody may be waiting for it any more."""
    task = asyncio.ensure_future(_kill(container))
    _killers.add(task)
    task.add_done_callback(_killers.discard)


async def _kill(container: Container) -> None:
    if not container.running:
        return
    try:
        await pod_of(container.sandbox).kill(container.id)
    except (ContainerError, OSError) as error:
        log.error("container %s (%s) cannot be killed: %s", container.id[:13], container.name, error)


async def kill_and_wait(daemon: Daemon, container: Container) -> None:
    """SIGKILL now; raises TookTooLong when it does not die of it."""
    await pod_of(container.sandbox).kill(container.id)
    await _await_exit(container, KILL_SECONDS)


async def _await_exit(container: Container, limit: float) -> None:
    try:
        async with asyncio.timeout(limit):
            await container.exited.wait()
    except TimeoutError:
        raise TookTooLong(
            f"container {container.id[:13]} ({container.name}) still runs {limit:g} s after the stop began, SIGKILL "
            "included: a process of it hangs in the kernel; look at /proc/PID/stack of those in its cgroup"
        ) from None
