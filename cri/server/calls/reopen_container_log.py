"""ReopenContainerLog."""

from __future__ import annotations

from cri.proto import api_pb2 as api
from cri.server.daemon import Daemon, pod_of
from cri.server.errors import WrongState


async def reopen_container_log(
    daemon: Daemon, request: api.ReopenContainerLogRequest
) -> api.ReopenContainerLogResponse:
    """A container that does not run is an error, and then no file is made (api.proto, ReopenContainerLog)."""
    container = daemon.store.containers.get(request.container_id)
    if not container.running:
        raise WrongState(f"container {container.id[:13]} ({container.name}) does not run, so nothing writes its log")
    try:
        await pod_of(container.sandbox).reopen_log(container.id)
    except FileNotFoundError:
        raise WrongState(
            f"the directory of log {container.spec.log_path} is gone; make it, and ask again: until then the container "
            "goes on writing to the file that it has open"
        ) from None
    return api.ReopenContainerLogResponse()
