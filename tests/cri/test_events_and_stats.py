"""What crid tells unasked, and what it measures."""

from __future__ import annotations

import asyncio
import json
import resource
from pathlib import Path
from typing import Any

import pytest

from cri.client import CriError
from cri.proto import api_pb2 as api
from runtime.linux.caps import NAMES
from runtime.linux.cgroups import Cgroup, detect
from tests.support.crid import Crid


async def test_events_tell_the_whole_life_with_the_whole_pod(crid: Crid, busybox: str) -> None:
    seen: list[api.ContainerEventResponse] = []

    async def listen() -> None:
        async for event in crid.cri.GetContainerEvents(timeout=30):
            seen.append(event)
            if event.container_event_type == api.CONTAINER_DELETED_EVENT and event.container_id == pod[0]:
                return

    pod: tuple[str, api.PodSandboxConfig] = ("", api.PodSandboxConfig())
    listening = asyncio.create_task(listen())
    await asyncio.sleep(0.2)
    pod = await crid.run_pod()
    id = await crid.run(pod, busybox, ["sh", "-c", "exit 4"])
    await crid.ended(id)
    await crid.cri.RemoveContainer(container_id=id)
    await crid.cri.StopPodSandbox(pod_sandbox_id=pod[0])
    await crid.cri.RemovePodSandbox(pod_sandbox_id=pod[0])
    await asyncio.wait_for(listening, 10)
    kinds = [(event.container_id == id, api.ContainerEventType.Name(event.container_event_type)) for event in seen]
    life = [f"CONTAINER_{word}_EVENT" for word in ("CREATED", "STARTED", "STOPPED", "DELETED")]
    assert [kind for mine, kind in kinds if mine] == life
    assert [kind for mine, kind in kinds if not mine] == life
    stopped = next(
        event
        for event in seen
        if event.container_id == id and event.container_event_type == api.CONTAINER_STOPPED_EVENT
    )
    assert stopped.pod_sandbox_status.state == api.SANDBOX_READY
    assert [(status.id, status.exit_code) for status in stopped.containers_statuses] == [(id, 4)]


async def test_statistics(crid: Crid, busybox: str) -> None:
    pod = await crid.run_pod(labels={"stats": "yes"})
    script = (
        "head -c 3000000 /dev/zero > /file; i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; echo ready; sleep 1000"
    )
    id = await crid.run(pod, busybox, ["sh", "-c", script], labels={"stats": "yes"})
    for _ in range(500):
        if "ready" in crid.log_of(pod[1]):
            break
        await asyncio.sleep(0.02)
    stats = (await crid.cri.ContainerStats(container_id=id)).stats
    assert stats.attributes.id == id
    assert stats.cpu.usage_core_nano_seconds.value > 1_000_000
    assert stats.memory.usage_bytes.value >= stats.memory.working_set_bytes.value > 0
    assert stats.writable_layer.used_bytes.value >= 3_000_000
    [listed] = (await crid.cri.ListContainerStats(filter={"label_selector": {"stats": "yes"}})).stats
    assert listed.attributes.id == id
    assert (await crid.cri.ListContainerStats(filter={"label_selector": {"stats": "no"}})).stats == []
    pod_stats = (await crid.cri.PodSandboxStats(pod_sandbox_id=pod[0])).stats.linux
    assert pod_stats.cpu.usage_core_nano_seconds.value >= stats.cpu.usage_core_nano_seconds.value
    assert pod_stats.process.process_count.value >= 2
    assert pod_stats.network.default_interface.name == "eth0"
    assert [item.attributes.id for item in pod_stats.containers] == [id]
    [streamed] = [item async for m in crid.cri.StreamContainerStats() for item in m.container_stats]
    assert streamed.attributes.id == id
    [pods] = [item async for m in crid.cri.StreamPodSandboxStats() for item in m.pod_sandbox_stats]
    assert pods.attributes.id == pod[0]


async def test_statistics_of_some(crid: Crid, busybox: str) -> None:
    """Filters hold together, and an id may be the beginning of one."""
    pods = [await crid.run_pod(labels={"app": app}) for app in ("a", "b")]
    ids = [await crid.run(pod, busybox, ["sleep", "1000"], labels={"tier": "front"}) for pod in pods]
    filters: list[tuple[dict[str, Any], list[str]]] = [
        ({}, ids),
        ({"id": ids[0][:13]}, ids[:1]),
        ({"pod_sandbox_id": pods[1][0][:13]}, ids[1:]),
        ({"label_selector": {"tier": "front"}}, ids),
        ({"label_selector": {"tier": "front"}, "pod_sandbox_id": pods[0][0]}, ids[:1]),
        ({"id": ids[0], "pod_sandbox_id": pods[1][0]}, []),
        ({"label_selector": {"tier": "front", "no": "such"}}, []),
    ]
    for asked, expected in filters:
        found = (await crid.cri.ListContainerStats(filter=asked)).stats
        assert {each.attributes.id for each in found} == set(expected), asked
    for asked, expected in [({"id": pods[0][0][:13]}, pods[0][0]), ({"label_selector": {"app": "b"}}, pods[1][0])]:
        [one] = (await crid.cri.ListPodSandboxStats(filter=asked)).stats
        assert one.attributes.id == expected
        assert [name for name in ("cpu", "memory", "io", "network", "process") if not one.linux.HasField(name)] == []


async def test_pressure_is_told_where_the_kernel_counts_it(crid: Crid, busybox: str) -> None:
    """KEP-4205: in nanoseconds, while the kernel's files count microseconds."""
    id = await crid.run(await crid.run_pod(), busybox, ["sh", "-c", "while :; do :; done"])
    info = json.loads((await crid.cri.ContainerStatus(container_id=id, verbose=True)).info["info"])
    cgroup = Cgroup(info["runtimeSpec"]["linux"]["cgroupsPath"], detect())
    if not Path(cgroup.v2, "cpu.pressure").exists():
        pytest.skip("this kernel counts no pressure (CONFIG_PSI)")

    def some(kind: str) -> int:
        line = Path(cgroup.v2, f"{kind}.pressure").read_text().splitlines()[0]
        return int(line.rpartition("total=")[2]) * 1000

    before = some("cpu")
    stats = (await crid.cri.ContainerStats(container_id=id)).stats
    assert before <= stats.cpu.psi.Some.Total <= some("cpu")
    for psi in (stats.memory.psi, stats.io.psi):
        assert psi.Full.Total <= psi.Some.Total
    pod = (await crid.cri.PodSandboxStats(pod_sandbox_id=info["sandboxID"])).stats.linux
    assert pod.cpu.psi.HasField("Some") and pod.memory.psi.HasField("Full") and pod.io.psi.HasField("Full")


#: A CNI plugin whose DEL fails as long as there is a file of its name with ".failing".
STUBBORN = """#!/bin/sh
cat > /dev/null
[ "$CNI_COMMAND" = ADD ] && echo '{"cniVersion": "1.0.0"}'
[ "$CNI_COMMAND" != DEL ] || [ ! -e "$0.failing" ]
"""


async def test_a_stop_that_fails_at_first_is_told_once(crid: Crid) -> None:
    plugin, conflist = crid.base / "cni-bin" / "stubborn", crid.base / "net.d" / "10-stubborn.conflist"
    plugin.write_text(STUBBORN)
    plugin.chmod(0o755)
    conflist.write_text(json.dumps({"cniVersion": "1.0.0", "name": "stubborn", "plugins": [{"type": "stubborn"}]}))
    failing = plugin.with_name("stubborn.failing")
    failing.touch()
    try:
        id, _ = await crid.run_pod()
    finally:
        conflist.unlink()

    async def listen() -> list[int]:
        seen = []
        async for event in crid.cri.GetContainerEvents(timeout=30):
            if event.container_id == id:
                seen.append(event.container_event_type)
                if seen[-1] == api.CONTAINER_DELETED_EVENT:
                    break
        return seen

    listening = asyncio.create_task(listen())
    await asyncio.sleep(0.2)
    with pytest.raises(CriError, match="stubborn"):
        await crid.cri.StopPodSandbox(pod_sandbox_id=id)
    failing.unlink()
    await crid.cri.RemovePodSandbox(pod_sandbox_id=id)
    assert await asyncio.wait_for(listening, 10) == [api.CONTAINER_STOPPED_EVENT, api.CONTAINER_DELETED_EVENT]


async def test_statistics_of_what_does_not_run(crid: Crid, busybox: str) -> None:
    pod = await crid.run_pod()
    id = await crid.create(pod, busybox, ["true"])
    with pytest.raises(CriError, match="uses nothing"):
        await crid.cri.ContainerStats(container_id=id)
    assert (await crid.cri.ListContainerStats()).stats == []


async def test_every_described_metric_is_delivered(crid: Crid, busybox: str) -> None:
    linux = {
        "resources": {"cpu_quota": 20000, "cpu_period": 100000, "memory_limit_in_bytes": 64 << 20},
        "security_context": {"run_as_user": {"value": 1000}},  # whose limits prlimit(2) may not tell us
    }
    await crid.run(await crid.run_pod(), busybox, ["sleep", "1000"], linux=linux)
    described = {row.name: len(row.label_keys) for row in (await crid.cri.ListMetricDescriptors()).descriptors}
    assert len(described) == 56
    [pod] = (await crid.cri.ListPodSandboxMetrics()).pod_metrics
    delivered = [*pod.metrics, *(metric for container in pod.container_metrics for metric in container.metrics)]
    assert {metric.name: len(metric.label_values) for metric in delivered}.items() <= described.items()
    [files] = [metric for metric in delivered if metric.name == "container_ulimits_soft"]
    assert files.value.value == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    # Block I/O appears with the first transfer, huge pages on kernels that have them.
    optional = {
        name
        for name in described
        if "blkio" in name or "hugetlb" in name or "_fs_reads" in name or "_fs_writes" in name
    }
    assert described.keys() - {metric.name for metric in delivered} <= optional
    streamed = [item async for m in crid.cri.StreamPodSandboxMetrics() for item in m.pod_sandbox_metrics]
    assert [item.pod_sandbox_id for item in streamed] == [pod.pod_sandbox_id]


async def test_what_the_runtime_says_of_itself(crid: Crid) -> None:
    version = await crid.cri.Version()
    assert (version.runtime_name, version.runtime_api_version) == ("crid", "v1")
    status = await crid.cri.Status(verbose=True)
    assert {item.type: item.status for item in status.status.conditions} == {"RuntimeReady": True, "NetworkReady": True}
    assert (await crid.cri.RuntimeConfig()).linux.cgroup_driver == api.CGROUPFS
    assert status.info["config"]


async def test_what_this_host_withholds_is_told_and_is_so(crid: Crid, busybox: str) -> None:
    """Without CAP_SYS_RESOURCE, say: a container that asks for it, or for a lower score, starts without."""
    security = json.loads((await crid.cri.Status(verbose=True)).info["security"])
    linux = {
        "resources": {"oom_score_adj": -1000},
        "security_context": {"capabilities": {"add_capabilities": ["ALL"]}},
    }
    script = "cat /proc/self/oom_score_adj; grep CapBnd /proc/self/status | cut -f2"
    pod = await crid.run_pod()
    await crid.ended(await crid.run(pod, busybox, ["sh", "-c", script], linux=linux))
    score, bounding = crid.log_of(pod[1]).splitlines()
    assert int(score) == security["least_oom_score_adj"]
    assert [name for number, name in enumerate(NAMES) if not int(bounding, 16) >> number & 1] == sorted(
        security["missing_capabilities"], key=NAMES.index
    )


async def test_checkpoints_say_why_not(crid: Crid, busybox: str) -> None:
    id = await crid.run(await crid.run_pod(), busybox, ["sleep", "1000"])
    with pytest.raises(CriError, match="CRIU") as caught:
        await crid.cri.CheckpointContainer(container_id=id, location="/tmp/x")
    assert caught.value.code == "FAILED_PRECONDITION"
