"""CheckpointContainer: a running container into an archive, and on it goes (KEP-2008)."""

from __future__ import annotations

import os

from cri.proto import api_pb2 as api
from cri.server.checkpoint.archive import check_location
from cri.server.checkpoint.take import check_container, paused, take
from cri.server.daemon import Daemon
from cri.server.specs.sources import look

#: For a client that leaves the choice to us.
SECONDS = 300.0


async def checkpoint_container(
    daemon: Daemon, request: api.CheckpointContainerRequest
) -> api.CheckpointContainerResponse:
    """Raises WrongState without a criu that works, or for a container that does not run; AlreadyExists; Exhausted."""
    container = daemon.store.containers.get(request.container_id)
    try:
        await look(os.path.dirname(request.location), check_location, request.location)
        check_container(container)
        program = await daemon.criu.program()
        async with daemon.store.containers.held(container), paused([container]):
            await take(daemon, container, program, request.location, float(request.timeout) or SECONDS)
    except Exception as error:
        error.add_note(f"while checkpointing container {container.id[:13]} ({container.name})")
        raise
    return api.CheckpointContainerResponse()
