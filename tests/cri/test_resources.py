"""Limits: enforced, reported, changed, refused."""

from __future__ import annotations

import pytest

from cri.client import CriError
from tests.support.crid import Crid


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
