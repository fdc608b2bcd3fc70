"""UpdateContainerResources: new limits for a container, all of them or none."""

from __future__ import annotations

import asyncio
from typing import Any

from cri.proto import api_pb2 as api
from cri.server.container_stats import cgroup_of
from cri.server.daemon import Daemon
from cri.server.errors import WrongState
from cri.server.pods import Container
from cri.server.resources import merged, oci_resources

#: What takes a limit away again, for values that were not set before (runtime-spec, config-linux.md).
_UNSET: dict[str, dict[str, Any]] = {
    "cpu": {"shares": 1024, "quota": -1, "period": 100_000},
    "memory": {"limit": -1, "swap": -1},
}


async def update_container_resources(
    daemon: Daemon, request: api.UpdateContainerResourcesRequest
) -> api.UpdateContainerResourcesResponse:
    """What the request leaves unset stays as it is. Raises WrongState, InvalidRequest, MissingController, OSError."""
    container = daemon.store.containers.get(request.container_id)
    async with container.lock:
        if container.finished_at:
            raise WrongState(f"container {container.id[:13]} ({container.name}) has exited; it has no limits any more")
        wanted = merged(container.resources, request.linux)
        oci_resources(wanted)  # contradictions with what is in force show before anything changes
        if container.running:
            await asyncio.to_thread(_apply, container, oci_resources(request.linux))
        _write_down(daemon, container, wanted)
    return api.UpdateContainerResourcesResponse()


def _apply(container: Container, change: dict[str, Any]) -> None:
    cgroup = cgroup_of(container)
    before = _before(oci_resources(container.resources), change)
    try:
        cgroup.apply(change)
    except OSError as error:
        # The kernel took some of the values: the old ones go back, so that the answer "refused" is the truth.
        try:
            cgroup.apply(before)
        except OSError as second:
            error.add_note(f"and the former limits could not all be put back: {second}")
        raise


def _before(current: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """The former value of everything that `change` touches."""
    former: dict[str, Any] = {}
    for group, values in change.items():
        if not isinstance(values, dict):
            continue
        known = {**_UNSET.get(group, {}), **current.get(group, {})}
        former[group] = {key: known[key] for key in values if key in known}
    return former


def _write_down(daemon: Daemon, container: Container, wanted: api.LinuxContainerResources) -> None:
    container.resources = wanted
    linux = container.spec.oci["linux"]
    linux["resources"] = {**oci_resources(wanted), "devices": linux["resources"]["devices"]}
    daemon.store.save_spec(container)
    daemon.store.save_state(container)
