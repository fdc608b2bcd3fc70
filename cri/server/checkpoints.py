"""CheckpointContainer, CheckpointPod and RestorePod: this build has no CRIU behind them, and says so."""

from __future__ import annotations

from cri.proto import api_pb2 as api
from cri.server.daemon import Daemon
from cri.server.errors import InvalidRequest, WrongState

_WHY = "checkpoints need CRIU, which this version of crid does not drive; nothing was paused or written"


async def checkpoint_container(
    daemon: Daemon, request: api.CheckpointContainerRequest
) -> api.CheckpointContainerResponse:
    container = daemon.store.containers.get(request.container_id)
    raise WrongState(f"container {container.id[:13]} ({container.name}) cannot be checkpointed: {_WHY}")


async def checkpoint_pod(daemon: Daemon, request: api.CheckpointPodRequest) -> api.CheckpointPodResponse:
    sandbox = daemon.store.sandboxes.get(request.pod_sandbox_id)
    raise WrongState(f"pod {sandbox.name} cannot be checkpointed: {_WHY}")


async def restore_pod(daemon: Daemon, request: api.RestorePodRequest) -> api.RestorePodResponse:
    if not request.checkpoint_path.startswith("/"):
        raise InvalidRequest(f"checkpoint_path {request.checkpoint_path[:200]!r} is not absolute")
    raise WrongState(f"the checkpoint at {request.checkpoint_path[:200]} cannot be restored: {_WHY}")
