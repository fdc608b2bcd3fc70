"""Limits: enforced, reported, changed, refused."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cri.client import CriError
from cri.proto import api_pb2 as api
from runtime.linux.cgroups import Cgroup, detect
from runtime.linux.cgroups.usage import read_stats
from tests.support.crid import Crid

MIB = 1 << 20


async def test_out_of_memory_is_told(crid: Crid, busybox: str) -> None:
    script = "x=a; while :; do x=$x$x$x$x; done"
    linux = {"resources": {"memory_limit_in_bytes": 16 << 20}}
    status = await crid.ended(await crid.run(await crid.run_pod(), busybox, ["sh", "-c", script], linux=linux))
    assert (status.reason, status.exit_code) == ("OOMKilled", 137)


async def test_limits_can_be_changed_and_are_reported(crid: Crid, busybox: str) -> None:
    linux = {"resources": {"cpu_quota": 20000, "cpu_period": 100000, "memory_limit_in_bytes": 64 << 20}}
    pod = await crid.run_pod()
    id = await crid.run(pod, busybox, ["sleep", "1000"], linux=linux)
    assert (await crid.status(id)).resources.linux.cpu_quota == 20000
    await crid.cri.UpdateContainerResources(
        container_id=id, linux={"cpu_quota": 50000, "memory_limit_in_bytes": 32 << 20}
    )
    resources = (await crid.status(id)).resources.linux
    assert (resources.cpu_quota, resources.cpu_period, resources.memory_limit_in_bytes) == (50000, 100000, 32 << 20)
    stats = (await crid.cri.ContainerStats(container_id=id)).stats
    memory = stats.memory
    assert memory.working_set_bytes.value + memory.available_bytes.value == 32 << 20
    with pytest.raises(CriError):
        await crid.cri.UpdateContainerResources(container_id=id, linux={"cpu_quota": 60000, "cpuset_cpus": "9999"})
    assert (await crid.status(id)).resources.linux.cpu_quota == 50000


async def test_a_limit_that_nothing_enforces_is_refused_by_name(crid: Crid, busybox: str) -> None:
    linux = {"resources": {"unified": {"nonsense.max": "1"}}}
    id = await crid.create(await crid.run_pod(), busybox, ["true"], linux=linux)
    with pytest.raises(CriError, match="nonsense"):
        await crid.cri.StartContainer(container_id=id)


async def cgroup_of(crid: Crid, id: str) -> Cgroup:
    info = json.loads((await crid.cri.ContainerStatus(container_id=id, verbose=True)).info["info"])
    return Cgroup(info["runtimeSpec"]["linux"]["cgroupsPath"], detect())


async def kernel_says(crid: Crid, id: str) -> tuple[int | None, int | None]:
    """(memory limit, limit of swap alone) of a container, in bytes; None for no limit."""
    memory = read_stats(await cgroup_of(crid, id)).memory
    assert memory is not None
    return memory.limit, memory.swap_limit


async def test_a_memory_limit_alone_allows_no_swap(crid: Crid, busybox: str) -> None:
    """As the peers have it; and swap follows when that limit moves, in either direction."""
    linux = {"resources": {"memory_limit_in_bytes": 64 * MIB}}
    id = await crid.run(await crid.run_pod(), busybox, ["sleep", "1000"], linux=linux)
    for limit in (64 * MIB, 128 * MIB, 32 * MIB):
        await crid.cri.UpdateContainerResources(container_id=id, linux={"memory_limit_in_bytes": limit})
        assert await kernel_says(crid, id) in ((limit, 0), (limit, None)), "None: this kernel counts no swap"
        resources = (await crid.status(id)).resources.linux
        assert (resources.memory_limit_in_bytes, resources.memory_swap_limit_in_bytes) == (limit, 0)


async def test_half_of_a_pair_leaves_the_other_half(crid: Crid, busybox: str) -> None:
    """Quota and period are one file on cgroup v2, and swap is counted from memory."""
    linux = {"resources": {"cpu_quota": 10_000, "cpu_period": 50_000}}
    id = await crid.run(await crid.run_pod(), busybox, ["sleep", "1000"], linux=linux)
    await crid.cri.UpdateContainerResources(container_id=id, linux={"cpu_quota": 20_000})
    await crid.cri.UpdateContainerResources(container_id=id, linux={"cpu_period": 100_000})
    resources = (await crid.status(id)).resources.linux
    assert (resources.cpu_quota, resources.cpu_period) == (20_000, 100_000)


LIMITS = ("cpuset.cpus", "cpu.shares", "cpu.cfs_quota_us", "memory.limit_in_bytes", "cpu.weight", "cpu.max")


async def in_force(crid: Crid, id: str) -> list[str]:
    """What the files of LIMITS hold, those that this host has."""
    cgroup = await cgroup_of(crid, id)
    files = [Path(place, name) for place in cgroup.directories for name in LIMITS]
    return [file.read_text() for file in files if file.exists()]


@pytest.mark.parametrize(
    "last", [{"hugepage_limits": [{"page_size": "3MB", "limit": 1}]}, {"memory_limit_in_bytes": 1}]
)
async def test_an_update_is_made_altogether_or_not_at_all(crid: Crid, busybox: str, last: dict[str, Any]) -> None:
    """What the kernel has taken before it refuses goes back, also what nobody had asked for before."""
    if "memory_limit_in_bytes" in last and detect().version("memory") == 2:
        pytest.skip("memory.max can be set below the usage, and ends the container")
    id = await crid.run(await crid.run_pod(), busybox, ["sleep", "1000"])
    change = {"cpuset_cpus": "0", "cpu_quota": 30_000, "cpu_shares": 77}
    before = await in_force(crid, id)
    with pytest.raises(CriError):
        await crid.cri.UpdateContainerResources(container_id=id, linux={**change, **last})
    assert await in_force(crid, id) == before
    assert (await crid.status(id)).resources.linux == api.LinuxContainerResources()
    await crid.cri.UpdateContainerResources(container_id=id, linux=change)
    assert await in_force(crid, id) != before


async def test_a_new_oom_score_reaches_every_process(crid: Crid, busybox: str) -> None:
    """A kubelet that resizes a container sends the score that its new memory request makes."""
    script = "sleep 1000 & exec sleep 1000"
    linux = {"resources": {"oom_score_adj": 500}}
    id = await crid.run(await crid.run_pod(), busybox, ["sh", "-c", script], linux=linux)
    wait = "while set -- $(pidof sleep); [ $# -lt 2 ]; do :; done; echo $@"
    pids = (await crid.exec(id, "sh", "-c", wait))[1].split()
    files = [f"/proc/{pid}/oom_score_adj" for pid in pids]
    for score in (700, 600):
        await crid.cri.UpdateContainerResources(container_id=id, linux={"oom_score_adj": score})
        # /proc/self: one that is started afterwards has it too.
        assert (await crid.exec(id, "cat", *files, "/proc/self/oom_score_adj"))[1].split() == [str(score)] * 3
        assert (await crid.status(id)).resources.linux.oom_score_adj == score
    with pytest.raises(CriError, match="is outside"):
        await crid.cri.UpdateContainerResources(container_id=id, linux={"oom_score_adj": 1001})


@pytest.fixture(params=["everywhere", "v1 alone"])
def kubelets(request: pytest.FixtureRequest) -> Iterator[Cgroup]:
    """A pod cgroup that a kubelet has made, with its limit; on a hybrid host it makes none in v2."""
    cgroup = Cgroup(f"/{secrets.token_hex(4)}-kubelet", detect())
    if request.param == "v1 alone" and cgroup.layout.version("memory") == 2:
        pytest.skip("cgroup v2 alone")
    cgroup.create()
    try:
        cgroup.apply({"memory": {"limit": 512 * MIB}})
        if request.param == "v1 alone":
            os.rmdir(cgroup.v2)
        yield cgroup
    finally:
        cgroup.remove()


async def test_the_limits_of_a_pod_are_those_of_whoever_made_its_cgroup(crid: Crid, kubelets: Cgroup) -> None:
    """A kubelet has put the overhead of the pod into its cgroup, which the containers' sum would take away."""
    fields = {"resources": {"memory_limit_in_bytes": 256 * MIB}, "overhead": {"memory_limit_in_bytes": 128 * MIB}}
    before = [directory for directory in kubelets.directories if Path(directory).exists()]
    id, _ = await crid.run_pod(linux={**fields, "cgroup_parent": kubelets.path})
    memory = read_stats(kubelets).memory
    await crid.cri.RemovePodSandbox(pod_sandbox_id=id)
    assert [directory for directory in kubelets.directories if Path(directory).exists()] == before
    assert memory is not None and memory.limit == 512 * MIB
    ours = f"/{crid.bridge}/ours"
    await crid.run_pod(linux={**fields, "cgroup_parent": ours})
    memory = read_stats(Cgroup(ours, detect())).memory
    assert memory is not None and memory.limit == (256 + 128) * MIB


async def test_nothing_is_left_of_cgroups_that_many_pods_made_at_once(crid: Crid) -> None:
    top = f"/{secrets.token_hex(4)}-shared"
    pods = [crid.run_pod(linux={"cgroup_parent": f"{top}/deep/pod{number}"}) for number in range(12)]
    for id, _ in await asyncio.gather(*pods):
        await crid.cri.RemovePodSandbox(pod_sandbox_id=id)
    assert not Cgroup(top, detect()).exists()
