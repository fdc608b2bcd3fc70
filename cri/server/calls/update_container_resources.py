"""UpdateContainerResources: new limits for a container, all of them or none."""

from __future__ import annotations

from cri.proto import api_pb2 as api
from cri.server.daemon import Daemon
from cri.server.limits import change_limits, change_oom_score, check_has_limits
from cri.server.specs.resources import merged, oci_resources, oom_score_adj


async def update_container_resources(
    daemon: Daemon, request: api.UpdateContainerResourcesRequest
) -> api.UpdateContainerResourcesResponse:
    """What the request leaves unset stays as it is. Raises WrongState, InvalidRequest, MissingController, OSError."""
    container = daemon.store.containers.get(request.container_id)
    async with daemon.store.containers.held(container):
        # Both are checked again after the plugins, which may take long and ask for other limits.
        check_has_limits(container)
        oci_resources(merged(container.resources, request.linux))
        score = oom_score_adj(request.linux.oom_score_adj)
        change = await daemon.nri.update(container, request.linux)
        await change_limits(daemon.store, container, change)
        if request.linux.oom_score_adj:  # 0: not specified
            await change_oom_score(daemon.store, container, request.linux.oom_score_adj, score)
    await daemon.nri.updated(container)
    return api.UpdateContainerResourcesResponse()
