"""ListContainers and StreamContainers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator

from cri.proto import api_pb2 as api
from cri.server.calls.batches import batches
from cri.server.daemon import Daemon
from cri.server.pods import Container
from cri.server.statuses import labels_match, listed_container


def matching(daemon: Daemon, filter: api.ContainerFilter) -> Iterator[Container]:
    """The containers that meet all conditions of a filter; ids may be unique prefixes."""
    for container in _candidates(daemon, filter.id, filter.pod_sandbox_id):
        if filter.HasField("state") and container.state != filter.state.state:
            continue
        if not filter.label_selector or labels_match(container.config.labels, filter.label_selector):
            yield container


def _candidates(daemon: Daemon, id: str, sandbox_id: str) -> Iterable[Container]:
    if sandbox_id:
        sandbox = daemon.store.sandboxes.find(sandbox_id)
        inside = list(sandbox.containers.values()) if sandbox else []
        return [container for container in inside if container.id.startswith(id)]
    if id:
        found = daemon.store.containers.find(id)
        return [found] if found else []
    return daemon.store.containers


async def list_containers(daemon: Daemon, request: api.ListContainersRequest) -> api.ListContainersResponse:
    found = matching(daemon, request.filter)
    return api.ListContainersResponse(containers=[listed_container(container) for container in found])


async def stream_containers(
    daemon: Daemon, request: api.StreamContainersRequest
) -> AsyncIterator[api.StreamContainersResponse]:
    for batch in batches(map(listed_container, matching(daemon, request.filter)), api.Container.ByteSize):
        yield api.StreamContainersResponse(containers=batch)
