"""ListMetricDescriptors, ListPodSandboxMetrics and StreamPodSandboxMetrics.

Their names and labels are in usage/metric_table.py, the values in metric_samples.py and how both become messages in
metric_rows.py beside it; here pods are read, off the event loop.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from cri.proto import api_pb2 as api
from cri.server.calls.batches import batches
from cri.server.calls.container_stats import if_there
from cri.server.daemon import Daemon
from cri.server.pods import Container, Sandbox, cgroup_of
from cri.server.usage.metric_rows import Labels
from cri.server.usage.metric_samples import (
    Filesystem,
    of_counters,
    of_filesystem,
    of_network,
    of_processes,
    of_spec,
    of_usage,
)
from cri.server.usage.metric_table import DESCRIPTORS
from cri.server.usage.network import traffic
from runtime.linux.cgroups import Cgroup
from runtime.linux.cgroups.counters import read_counters
from runtime.linux.cgroups.stats import Counters, PidsStats, Stats
from runtime.linux.cgroups.usage import read_pids, read_stats


async def list_metric_descriptors(
    daemon: Daemon, request: api.ListMetricDescriptorsRequest
) -> api.ListMetricDescriptorsResponse:
    return api.ListMetricDescriptorsResponse(descriptors=[row.message() for row in DESCRIPTORS.values()])


async def list_pod_sandbox_metrics(
    daemon: Daemon, request: api.ListPodSandboxMetricsRequest
) -> api.ListPodSandboxMetricsResponse:
    response = api.ListPodSandboxMetricsResponse()
    await _collect(daemon, _ready(daemon), response.pod_metrics)
    return response


async def stream_pod_sandbox_metrics(
    daemon: Daemon, request: api.StreamPodSandboxMetricsRequest
) -> AsyncIterator[api.StreamPodSandboxMetricsResponse]:
    for batch in batches(_ready(daemon), Sandbox.weight):
        response = api.StreamPodSandboxMetricsResponse()
        await _collect(daemon, batch, response.pod_sandbox_metrics)
        yield response


def _ready(daemon: Daemon) -> Iterator[Sandbox]:
    return (sandbox for sandbox in daemon.store.sandboxes if sandbox.ready)


async def _collect(daemon: Daemon, sandboxes: Iterable[Sandbox], into: Any) -> None:
    """Add each pod's PodSandboxMetrics `into` a repeated field: seven thousand messages are better not copied."""
    wanted = [(sandbox, _running(sandbox)) for sandbox in sandboxes]
    await daemon.layers.measured(container.snapshots[0] for _, containers in wanted for container in containers)
    jobs = [_job(daemon, *pod) for pod in wanted]
    filesystem = Filesystem.of(str(daemon.config.root))

    def run() -> None:
        for job in jobs:
            job.run(filesystem, into.add(pod_sandbox_id=job.sandbox.id))

    await asyncio.to_thread(run)


@dataclass(frozen=True, slots=True)
class _Job:
    """What a thread needs to read one pod's metrics, collected in the event loop."""

    sandbox: Sandbox
    #: With the size of its writable layer in bytes, if that is known.
    containers: list[tuple[Container, int | None]]

    def run(self, filesystem: Filesystem, message: api.PodSandboxMetrics) -> None:
        sandbox = self.sandbox
        if sandbox.pod is not None and not sandbox.host_network:
            labels = _labels(sandbox, sandbox.cgroup, sandbox.id, "", "")
            sandbox.metrics.fill(message, labels, of_network(traffic(sandbox.pod.shim)))
        for container, layer in self.containers:
            _fill(message.container_metrics.add(container_id=container.id), container, layer, filesystem)


def _running(sandbox: Sandbox) -> list[Container]:
    return [container for container in sandbox.containers.values() if container.running]


def _job(daemon: Daemon, sandbox: Sandbox, running: list[Container]) -> _Job:
    layers = [daemon.layers.of(container.snapshots[0]) for container in running]
    sizes = [layer.used_bytes.value if layer else None for layer in layers]
    return _Job(sandbox, list(zip(running, sizes, strict=True)))


def _fill(message: api.ContainerMetrics, container: Container, layer: int | None, filesystem: Filesystem) -> None:
    cgroup = cgroup_of(container)
    if (read := if_there(cgroup, _read)) is None:
        return
    config = container.config
    labels = _labels(container.sandbox, cgroup.path, container.id, container.image_name, config.metadata.name)
    samples = itertools.chain(
        of_usage(read.stats),
        of_counters(read.counters),
        of_processes(read.processes, read.tasks, read.oom_kills),
        of_filesystem(layer, filesystem),
        of_spec(container),
    )
    container.metrics.fill(message, labels, samples)


@dataclass(frozen=True, slots=True)
class _Read:
    """What a container's cgroup says."""

    stats: Stats
    counters: Counters
    tasks: PidsStats | None
    oom_kills: int
    processes: list[int]


def _read(cgroup: Cgroup) -> _Read:
    return _Read(read_stats(cgroup), read_counters(cgroup), read_pids(cgroup), cgroup.oom_kills(), cgroup.procs())


def _labels(sandbox: Sandbox, cgroup: str, id: str, image: str, container: str) -> Labels:
    metadata = sandbox.config.metadata
    return cgroup, id, image, container, metadata.name, metadata.namespace
