"""StopPodSandbox: kill what runs in a pod and give its addresses back."""

from __future__ import annotations

import time

from cri.proto import api_pb2 as api
from cri.server.daemon import Daemon
from cri.server.pods import Sandbox
from cri.server.sandbox_end import end_sandbox


async def stop_pod_sandbox(daemon: Daemon, request: api.StopPodSandboxRequest) -> api.StopPodSandboxResponse:
    """Idempotent: an unknown sandbox, or one that is stopped, is success (api.proto, StopPodSandbox)."""
    sandbox = daemon.store.sandboxes.find(request.pod_sandbox_id)
    if sandbox is not None:
        async with sandbox.lock:
            await stop(daemon, sandbox)
    return api.StopPodSandboxResponse()


async def stop(daemon: Daemon, sandbox: Sandbox) -> None:
    """The caller holds the sandbox's lock. NOTREADY is written first: a crash now leaves a stop to be repeated."""
    was_ready = sandbox.ready
    if was_ready:
        sandbox.stopped_at = time.time_ns()
        daemon.store.save_end(sandbox)
    elif sandbox.ended:
        return
    try:
        await end_sandbox(daemon, sandbox)
        for container in list(sandbox.containers.values()):
            daemon.exits.finish_lost(container, "its pod was stopped")
        sandbox.ended = True
        await daemon.nri.stopped_pod(sandbox)
    finally:
        if was_ready:  # also when the rest of the stop must be repeated, which is no news then
            daemon.events.publish(api.CONTAINER_STOPPED_EVENT, sandbox.id, sandbox)
