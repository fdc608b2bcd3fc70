"""PodSandboxStats, ListPodSandboxStats and StreamPodSandboxStats."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping

from cri.proto import api_pb2 as api
from cri.server import usage
from cri.server.batches import batches
from cri.server.container_stats import read_cgroup, stats_of
from cri.server.daemon import Daemon
from cri.server.errors import WrongState
from cri.server.network_usage import Traffic, network_usage, traffic
from cri.server.pods import Sandbox
from cri.server.statuses import labels_match
from runtime.linux.cgroups import Cgroup
from runtime.linux.cgroups.stats import Stats


async def pod_sandbox_stats(daemon: Daemon, request: api.PodSandboxStatsRequest) -> api.PodSandboxStatsResponse:
    sandbox = daemon.store.sandboxes.get(request.pod_sandbox_id)
    if not sandbox.ready:
        raise WrongState(f"sandbox {sandbox.id[:13]} of pod {sandbox.name} is not ready and uses nothing")
    [stats] = await _stats(daemon, [sandbox])
    return api.PodSandboxStatsResponse(stats=stats)


async def list_pod_sandbox_stats(
    daemon: Daemon, request: api.ListPodSandboxStatsRequest
) -> api.ListPodSandboxStatsResponse:
    return api.ListPodSandboxStatsResponse(stats=await _stats(daemon, matching(daemon, request.filter)))


async def stream_pod_sandbox_stats(
    daemon: Daemon, request: api.StreamPodSandboxStatsRequest
) -> AsyncIterator[api.StreamPodSandboxStatsResponse]:
    for batch in batches(matching(daemon, request.filter), Sandbox.weight):
        yield api.StreamPodSandboxStatsResponse(pod_sandbox_stats=await _stats(daemon, batch))


def matching(daemon: Daemon, filter: api.PodSandboxStatsFilter) -> Iterator[Sandbox]:
    """The ready sandboxes that meet all conditions of a filter."""
    for sandbox in daemon.store.sandboxes:
        if (
            sandbox.ready
            and sandbox.id.startswith(filter.id)
            and labels_match(sandbox.config.labels, filter.label_selector)
        ):
            yield sandbox


async def _stats(daemon: Daemon, sandboxes: Iterable[Sandbox]) -> list[api.PodSandboxStats]:
    """All pods in two thread hops, however many they are."""
    wanted = list(sandboxes)
    read = await asyncio.to_thread(lambda: [_read(sandbox) for sandbox in wanted])
    containers = await stats_of(daemon, (found for sandbox in wanted for found in sandbox.containers.values()))
    by_id = {stats.attributes.id: stats for stats in containers}
    return [_message(daemon, pod, *parts, by_id) for pod, parts in zip(wanted, read, strict=True)]


def _read(sandbox: Sandbox) -> tuple[Stats | None, list[Traffic] | None]:
    """The usage of the pod's cgroup, and its traffic unless that is the host's. Blocks."""
    pod = sandbox.pod
    interfaces = traffic(pod.shim) if pod is not None and not sandbox.host_network else None
    return read_cgroup(Cgroup(sandbox.cgroup, sandbox.layout)), interfaces


def _message(
    daemon: Daemon,
    sandbox: Sandbox,
    stats: Stats | None,
    interfaces: list[Traffic] | None,
    containers: Mapping[str, api.ContainerStats],
) -> api.PodSandboxStats:
    config = sandbox.config
    message = api.PodSandboxStats(
        attributes=api.PodSandboxAttributes(
            id=sandbox.id, metadata=config.metadata, labels=config.labels, annotations=config.annotations
        )
    )
    linux = message.linux
    linux.containers.extend(containers[id] for id in sandbox.containers if id in containers)
    if interfaces is not None:
        linux.network.CopyFrom(network_usage(interfaces))
    if stats is not None:
        rate = daemon.rates.nano_cores(sandbox.id, stats.timestamp_ns, stats.cpu.usage_ns) if stats.cpu else None
        linux.MergeFrom(
            api.LinuxPodSandboxStats(
                cpu=usage.cpu_usage(stats, rate), memory=usage.memory_usage(stats), io=usage.io_usage(stats)
            )
        )
        if stats.pids is not None:
            linux.process.timestamp = stats.timestamp_ns
            linux.process.process_count.value = stats.pids.current
    return message
