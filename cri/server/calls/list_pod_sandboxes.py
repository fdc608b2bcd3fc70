"""ListPodSandbox and StreamPodSandboxes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

from cri.proto import api_pb2 as api
from cri.server.calls.batches import batches
from cri.server.daemon import Daemon
from cri.server.pods import Sandbox
from cri.server.statuses import labels_match, listed_sandbox


def matching(daemon: Daemon, filter: api.PodSandboxFilter) -> Iterator[Sandbox]:
    """The sandboxes that meet all conditions of a filter; an id may be a unique prefix."""
    if filter.id:
        found = daemon.store.sandboxes.find(filter.id)
        candidates = iter([found] if found else [])
    else:
        candidates = iter(daemon.store.sandboxes)
    for sandbox in candidates:
        if filter.HasField("state") and sandbox.state != filter.state.state:
            continue
        if labels_match(sandbox.config.labels, filter.label_selector):
            yield sandbox


async def list_pod_sandbox(daemon: Daemon, request: api.ListPodSandboxRequest) -> api.ListPodSandboxResponse:
    return api.ListPodSandboxResponse(items=[listed_sandbox(sandbox) for sandbox in matching(daemon, request.filter)])


async def stream_pod_sandboxes(
    daemon: Daemon, request: api.StreamPodSandboxesRequest
) -> AsyncIterator[api.StreamPodSandboxesResponse]:
    for batch in batches(map(listed_sandbox, matching(daemon, request.filter)), api.PodSandbox.ByteSize):
        yield api.StreamPodSandboxesResponse(pod_sandboxes=batch)
