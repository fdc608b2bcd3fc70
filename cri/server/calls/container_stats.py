"""ContainerStats, ListContainerStats and StreamContainerStats."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import TypeVar

from cri.proto import api_pb2 as api
from cri.server.calls.batches import batches
from cri.server.daemon import Daemon
from cri.server.errors import WrongState
from cri.server.pods import Container, cgroup_of
from cri.server.statuses import labels_match
from cri.server.usage import cgroups
from runtime.linux.cgroups import Cgroup, CgroupError
from runtime.linux.cgroups.stats import Stats
from runtime.linux.cgroups.usage import read_stats

T = TypeVar("T")


async def container_stats(daemon: Daemon, request: api.ContainerStatsRequest) -> api.ContainerStatsResponse:
    container = daemon.store.containers.get(request.container_id)
    response = api.ContainerStatsResponse()
    for _, stats in await _read_all(daemon, [container]):
        fill(daemon, response.stats, container, stats)
        return response
    state = api.ContainerState.Name(container.state)
    raise WrongState(f"container {container.id[:13]} ({container.name}) is {state} and uses nothing")


async def list_container_stats(
    daemon: Daemon, request: api.ListContainerStatsRequest
) -> api.ListContainerStatsResponse:
    response = api.ListContainerStatsResponse()
    for container, stats in await _read_all(daemon, matching(daemon, request.filter)):
        fill(daemon, response.stats.add(), container, stats)
    return response


async def stream_container_stats(
    daemon: Daemon, request: api.StreamContainerStatsRequest
) -> AsyncIterator[api.StreamContainerStatsResponse]:
    for batch in batches(matching(daemon, request.filter), Container.weight):
        response = api.StreamContainerStatsResponse()
        for container, stats in await _read_all(daemon, batch):
            fill(daemon, response.container_stats.add(), container, stats)
        if response.container_stats:
            yield response


def matching(daemon: Daemon, filter: api.ContainerStatsFilter) -> Iterator[Container]:
    """The running containers that meet all conditions of a filter."""
    for container in daemon.store.containers:
        if (
            container.running
            and container.id.startswith(filter.id)
            and container.sandbox.id.startswith(filter.pod_sandbox_id)
            and labels_match(container.config.labels, filter.label_selector)
        ):
            yield container


async def _read_all(daemon: Daemon, containers: Iterable[Container]) -> list[tuple[Container, Stats]]:
    """Those that still run by the time they are read, in one thread hop; what was removed meanwhile is left out."""
    wanted = [container for container in containers if container.running]
    await daemon.layers.measured(container.snapshots[0] for container in wanted)
    read = await asyncio.to_thread(lambda: [read_container(container) for container in wanted])
    there = daemon.store.containers
    return [(container, stats) for container, stats in zip(wanted, read, strict=True) if stats and container in there]


def read_container(container: Container) -> Stats | None:
    """Blocks; None once it is gone."""
    return if_there(cgroup_of(container), read_stats)


def if_there(cgroup: Cgroup, read: Callable[[Cgroup], T]) -> T | None:
    """What `read` reads of a cgroup, or None when that is gone. Blocks for some 10 file reads."""
    try:
        return read(cgroup)
    except (FileNotFoundError, CgroupError):
        return None
    except OSError as error:
        if error.errno == errno.ENODEV:  # removed between an open and its read
            return None
        error.add_note(f"while reading the usage of cgroup {cgroup.path}")
        raise


def fill(daemon: Daemon, message: api.ContainerStats, container: Container, stats: Stats) -> None:
    """One container's message, with the size of its writable layer if that is known."""
    config, attributes = container.config, message.attributes
    attributes.id = container.id
    attributes.metadata.CopyFrom(config.metadata)
    attributes.labels.update(config.labels)
    attributes.annotations.update(config.annotations)
    cgroups.fill(message, container.id, stats, daemon.rates)
    cgroups.fill_swap(message.swap, stats)
    layer = daemon.layers.of(container.snapshots[0])
    if layer is not None:
        message.writable_layer.CopyFrom(layer)
