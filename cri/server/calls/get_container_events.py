"""GetContainerEvents."""

from __future__ import annotations

from collections.abc import AsyncIterator

from cri.proto import api_pb2 as api
from cri.server.daemon import Daemon


async def get_container_events(
    daemon: Daemon, request: api.GetEventsRequest
) -> AsyncIterator[api.ContainerEventResponse]:
    """From the moment of the call, until the client leaves or falls too far behind."""
    async for event in daemon.events.listen():
        yield event
