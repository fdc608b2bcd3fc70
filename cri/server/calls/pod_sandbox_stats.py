"""PodSandboxStats, ListPodSandboxStats and StreamPodSandboxStats."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass

from cri.proto import api_pb2 as api
from cri.server.calls import container_stats
from cri.server.calls.batches import batches
from cri.server.calls.container_stats import if_there, read_container
from cri.server.daemon import Daemon
from cri.server.errors import NotFound, WrongState
from cri.server.pods import Container, Sandbox
from cri.server.statuses import labels_match
from cri.server.usage import cgroups
from cri.server.usage.network import Traffic, fill_network, traffic
from runtime.linux.cgroups import Cgroup
from runtime.linux.cgroups.stats import Stats
from runtime.linux.cgroups.usage import read_stats, read_task_count


async def pod_sandbox_stats(daemon: Daemon, request: api.PodSandboxStatsRequest) -> api.PodSandboxStatsResponse:
    sandbox = daemon.store.sandboxes.get(request.pod_sandbox_id)
    if not sandbox.ready:
        raise WrongState(f"sandbox {sandbox.id[:13]} of pod {sandbox.name} is not ready and uses nothing")
    response = api.PodSandboxStatsResponse()
    for read in await _read_all(daemon, [sandbox]):
        _fill(daemon, response.stats, read)
        return response
    raise NotFound(f"pod sandbox {sandbox.id[:13]} was removed meanwhile")


async def list_pod_sandbox_stats(
    daemon: Daemon, request: api.ListPodSandboxStatsRequest
) -> api.ListPodSandboxStatsResponse:
    response = api.ListPodSandboxStatsResponse()
    for read in await _read_all(daemon, matching(daemon, request.filter)):
        _fill(daemon, response.stats.add(), read)
    return response


async def stream_pod_sandbox_stats(
    daemon: Daemon, request: api.StreamPodSandboxStatsRequest
) -> AsyncIterator[api.StreamPodSandboxStatsResponse]:
    for batch in batches(matching(daemon, request.filter), Sandbox.weight):
        response = api.StreamPodSandboxStatsResponse()
        for read in await _read_all(daemon, batch):
            _fill(daemon, response.pod_sandbox_stats.add(), read)
        yield response


def matching(daemon: Daemon, filter: api.PodSandboxStatsFilter) -> Iterator[Sandbox]:
    """The ready sandboxes that meet all conditions of a filter."""
    for sandbox in daemon.store.sandboxes:
        if (
            sandbox.ready
            and sandbox.id.startswith(filter.id)
            and labels_match(sandbox.config.labels, filter.label_selector)
        ):
            yield sandbox


@dataclass(frozen=True, slots=True)
class _Read:
    """What the kernel says about one pod; None or empty for what is gone."""

    sandbox: Sandbox
    stats: Stats | None
    tasks: int | None
    #: None with the host's network, whose traffic is not the pod's.
    interfaces: list[Traffic] | None
    containers: list[tuple[Container, Stats]]


async def _read_all(daemon: Daemon, sandboxes: Iterable[Sandbox]) -> list[_Read]:
    """All pods with their containers in one thread hop, but for what was removed meanwhile."""
    wanted = [
        (sandbox, [container for container in sandbox.containers.values() if container.running])
        for sandbox in sandboxes
    ]
    await daemon.layers.measured(container.snapshots[0] for _, containers in wanted for container in containers)
    read = await asyncio.to_thread(lambda: [_read(*pod) for pod in wanted])
    return [each for each in read if each.sandbox in daemon.store.sandboxes]


def _read(sandbox: Sandbox, containers: list[Container]) -> _Read:
    pod, cgroup = sandbox.pod, Cgroup(sandbox.cgroup, sandbox.layout)
    read = [(container, read_container(container)) for container in containers]
    return _Read(
        sandbox,
        if_there(cgroup, read_stats),
        if_there(cgroup, read_task_count),
        traffic(pod.shim) if pod is not None and not sandbox.host_network else None,
        [(container, stats) for container, stats in read if stats is not None],
    )


def _fill(daemon: Daemon, message: api.PodSandboxStats, read: _Read) -> None:
    config, attributes, linux = read.sandbox.config, message.attributes, message.linux
    attributes.id = read.sandbox.id
    attributes.metadata.CopyFrom(config.metadata)
    attributes.labels.update(config.labels)
    attributes.annotations.update(config.annotations)
    for container, stats in read.containers:
        if container in daemon.store.containers:
            container_stats.fill(daemon, linux.containers.add(), container, stats)
    if read.interfaces is not None:
        fill_network(linux.network, read.interfaces)
    if read.stats is not None:
        cgroups.fill(linux, read.sandbox.id, read.stats, daemon.rates)
        if read.tasks is not None:
            linux.process.timestamp = read.stats.timestamp_ns
            linux.process.process_count.value = read.tasks
