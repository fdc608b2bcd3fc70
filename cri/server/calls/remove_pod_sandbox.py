"""RemovePodSandbox: stop a pod, remove its containers, forget it."""

from __future__ import annotations

from cri.proto import api_pb2 as api
from cri.server.calls.remove_container import remove
from cri.server.calls.stop_pod_sandbox import stop
from cri.server.daemon import Daemon
from cri.server.sandbox_end import remove_directory


async def remove_pod_sandbox(daemon: Daemon, request: api.RemovePodSandboxRequest) -> api.RemovePodSandboxResponse:
    """Idempotent: an unknown sandbox is success (api.proto, RemovePodSandbox)."""
    sandbox = daemon.store.sandboxes.find(request.pod_sandbox_id)
    if sandbox is not None:
        async with sandbox.lock:
            if sandbox not in daemon.store.sandboxes:
                return api.RemovePodSandboxResponse()  # somebody else removed it while we waited for the lock
            await stop(daemon, sandbox)
            for container in list(sandbox.containers.values()):
                await remove(daemon, container)
            await remove_directory(daemon, sandbox.id)
            await daemon.nri.removed_pod(sandbox)
            daemon.store.forget_sandbox(sandbox)
            daemon.nri.forget(sandbox.id)
            daemon.rates.forget(sandbox.id)
        daemon.events.publish(api.CONTAINER_DELETED_EVENT, sandbox.id, sandbox)
    return api.RemovePodSandboxResponse()
