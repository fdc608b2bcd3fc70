"""UpdatePodSandboxResources: the client has changed the pod's cgroup; we take note."""

from __future__ import annotations

from cri.proto import api_pb2 as api
from cri.server.daemon import Daemon


async def update_pod_sandbox_resources(
    daemon: Daemon, request: api.UpdatePodSandboxResourcesRequest
) -> api.UpdatePodSandboxResourcesResponse:
    """The cgroup belongs to the client, which has changed it before this call; what we report follows."""
    sandbox = daemon.store.sandboxes.get(request.pod_sandbox_id)
    async with daemon.store.sandboxes.held(sandbox):
        await daemon.nri.update_pod(sandbox, request)
        if request.HasField("resources"):
            sandbox.config.linux.resources.CopyFrom(request.resources)
        if request.HasField("overhead"):
            sandbox.config.linux.overhead.CopyFrom(request.overhead)
        daemon.store.save_sandbox(sandbox)
    await daemon.nri.updated_pod(sandbox)
    return api.UpdatePodSandboxResourcesResponse()
