"""RemoveContainer: kill a container if it runs, and remove all that it has."""

from __future__ import annotations

import contextlib

from cri.proto import api_pb2 as api
from cri.server.calls.stop_container import kill_and_wait
from cri.server.checkpoint import workplace
from cri.server.daemon import Daemon
from cri.server.pods import Container
from runtime.client import ShimLost
from runtime.linux.failpoints import failpoint

FAILPOINTS = ("crid.remove_container.before_snapshot",)


async def remove_container(daemon: Daemon, request: api.RemoveContainerRequest) -> api.RemoveContainerResponse:
    """Idempotent: an unknown container is success (api.proto, RemoveContainer)."""
    container = daemon.store.containers.find(request.container_id)
    if container is not None:
        await remove(daemon, container)
    return api.RemoveContainerResponse()


async def remove(daemon: Daemon, container: Container) -> None:
    """Leave nothing of a container; its log belongs to the client and stays."""
    async with container.lock:
        if container not in daemon.store.containers:
            return  # somebody else removed it while we waited for the lock
        if container.running:
            await kill_and_wait(daemon, container)
        if container.sandbox.pod is not None:
            # With the shim gone its cgroup is gone as well, or stopping the sandbox will see to it.
            with contextlib.suppress(ShimLost):
                await container.sandbox.pod.remove_container(container.id)
        failpoint("crid.remove_container.before_snapshot")
        await release(daemon, container)
        await daemon.nri.removed(container)
        daemon.store.forget_container(container)
        daemon.nri.forget(container.id)
    daemon.events.publish(api.CONTAINER_DELETED_EVENT, container.id, container.sandbox)


async def release(daemon: Daemon, container: Container) -> None:
    """Give back the root file system and image volumes."""
    for key in container.snapshots:
        await daemon.images.containers.release(key)
        daemon.layers.forget(key)
    await workplace.discard(daemon, container.id)
    daemon.rates.forget(container.id)
    if daemon.images.get(container.image_id) is None:
        await daemon.images.gc()  # it was removed while this container still needed its layers
