"""ContainerStats, ListContainerStats and StreamContainerStats."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator

from cri.proto import api_pb2 as api
from cri.server import usage
from cri.server.batches import batches
from cri.server.daemon import Daemon
from cri.server.errors import WrongState
from cri.server.pods import Container
from cri.server.statuses import labels_match
from runtime.linux.cgroups import Cgroup, CgroupError
from runtime.linux.cgroups.stats import Stats


async def container_stats(daemon: Daemon, request: api.ContainerStatsRequest) -> api.ContainerStatsResponse:
    container = daemon.store.containers.get(request.container_id)
    found = await stats_of(daemon, [container])
    if not found:
        state = api.ContainerState.Name(container.state)
        raise WrongState(f"container {container.id[:13]} ({container.name}) is {state} and uses nothing")
    return api.ContainerStatsResponse(stats=found[0])


async def list_container_stats(
    daemon: Daemon, request: api.ListContainerStatsRequest
) -> api.ListContainerStatsResponse:
    return api.ListContainerStatsResponse(stats=await stats_of(daemon, matching(daemon, request.filter)))


async def stream_container_stats(
    daemon: Daemon, request: api.StreamContainerStatsRequest
) -> AsyncIterator[api.StreamContainerStatsResponse]:
    for batch in batches(matching(daemon, request.filter), Container.weight):
        if stats := await stats_of(daemon, batch):
            yield api.StreamContainerStatsResponse(container_stats=stats)


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


async def stats_of(daemon: Daemon, containers: Iterable[Container]) -> list[api.ContainerStats]:
    """Statistics of those that still run by the time they are read, in one thread hop."""
    wanted = [container for container in containers if container.running]
    read = await asyncio.to_thread(lambda: [read_cgroup(cgroup_of(container)) for container in wanted])
    return [await _message(daemon, container, stats) for container, stats in zip(wanted, read, strict=True) if stats]


def cgroup_of(container: Container) -> Cgroup:
    return Cgroup(container.cgroup, container.sandbox.layout)


def read_cgroup(cgroup: Cgroup) -> Stats | None:
    """The usage, or None when the cgroup is gone. Blocks for some 10 file reads."""
    try:
        return cgroup.stats()
    except (FileNotFoundError, CgroupError):
        return None
    except OSError as error:
        error.add_note(f"while reading the usage of cgroup {cgroup.path}")
        raise


async def _message(daemon: Daemon, container: Container, stats: Stats) -> api.ContainerStats:
    cpu = stats.cpu
    rate = daemon.rates.nano_cores(container.id, stats.timestamp_ns, cpu.usage_ns) if cpu else None
    return api.ContainerStats(
        attributes=attributes(container),
        cpu=usage.cpu_usage(stats, rate),
        memory=usage.memory_usage(stats),
        writable_layer=await daemon.layers.of(container.snapshots[0]),
        swap=usage.swap_usage(stats),
        io=usage.io_usage(stats),
    )


def attributes(container: Container) -> api.ContainerAttributes:
    config = container.config
    return api.ContainerAttributes(
        id=container.id, metadata=config.metadata, labels=config.labels, annotations=config.annotations
    )
