"""OCI resources as file settings for either cgroup version."""

from __future__ import annotations

from typing import Any

import pytest

from runtime.linux.cgroups import InvalidResources, Layout, MissingController
from runtime.linux.cgroups.convert import blkio_to_io_weight, shares_to_weight, swap_to_v2
from runtime.linux.cgroups.resources import plan

V1 = Layout(
    {name: f"/{name}" for name in ("cpu", "cpuset", "memory", "pids", "devices", "blkio", "hugetlb")}, "", frozenset()
)
V2 = Layout({}, "/v2", frozenset({"cpu", "cpuset", "memory", "pids", "io", "hugetlb", "rdma"}))
BARE = Layout({}, "/v2", frozenset())


def files(resources: dict[str, Any], layout: Layout) -> str:
    return "; ".join(f"{setting.file}={setting.value}" for setting in plan(resources, layout))


@pytest.mark.parametrize(
    ("shares", "weight"),
    # 2000 and 170 are from opencontainers/runc#4896.
    [(0, 1), (2, 1), (3, 2), (102, 17), (1000, 99), (1024, 100), (2000, 170), (262144, 10000), (1 << 20, 10000)],
)
def test_shares_to_weight(shares: int, weight: int) -> None:
    assert shares_to_weight(shares) == weight


def test_shares_to_weight_never_falls() -> None:
    weights = [shares_to_weight(shares) for shares in range(2, 1 << 18, 37)]
    assert weights == sorted(weights)


@pytest.mark.parametrize(
    ("swap", "limit", "swap_max"),
    [(-1, 0, -1), (-1, 100, -1), (-1, -1, -1), (150, 100, 50), (100, 100, 0)],
)
def test_swap_is_what_is_above_the_memory_limit(swap: int, limit: int, swap_max: int) -> None:
    assert swap_to_v2(swap, limit) == swap_max


@pytest.mark.parametrize(("swap", "limit"), [(100, 0), (100, -1), (99, 100)])
def test_swap_that_makes_no_sense(swap: int, limit: int) -> None:
    with pytest.raises(InvalidResources, match=r"memory\.swap"):
        swap_to_v2(swap, limit)


def test_io_weight_keeps_both_ends() -> None:
    assert [blkio_to_io_weight(weight) for weight in (10, 1000)] == [1, 10000]


#: (resources, files on v1, files on v2), the files as `name=value; name=value`
CASES: list[tuple[dict[str, Any], str, str]] = [
    (
        {"cpu": {"shares": 1024, "quota": 20000, "period": 100000}},
        "cpu.shares=1024; cpu.cfs_period_us=100000; cpu.cfs_quota_us=20000",
        "cpu.weight=100; cpu.max=20000 100000",
    ),
    (
        {"cpu": {"quota": -1, "period": 50000}},
        "cpu.cfs_period_us=50000; cpu.cfs_quota_us=-1",
        "cpu.max=max 50000",
    ),
    ({"cpu": {"quota": 5000}}, "cpu.cfs_quota_us=5000", "cpu.max=5000 100000"),
    (
        {"cpu": {"quota": 5000, "burst": 1000}},
        "cpu.cfs_quota_us=5000; cpu.cfs_burst_us=1000",
        "cpu.max=5000 100000; cpu.max.burst=1000",
    ),
    ({"cpu": {"idle": 1, "shares": 512}}, "cpu.idle=1; cpu.shares=512", "cpu.idle=1"),
    ({"cpu": {"cpus": "0-1", "mems": "0"}}, "cpuset.cpus=0-1; cpuset.mems=0", "cpuset.cpus=0-1; cpuset.mems=0"),
    ({"cpu": {"shares": 0, "quota": 0, "period": 0, "cpus": "", "realtimePeriod": 0}}, "", ""),
    ({"cpu": {"realtimeRuntime": 0}}, "cpu.rt_runtime_us=0", ""),
    (
        {"memory": {"limit": 6400, "swap": 9600, "reservation": 100}},
        "memory.limit_in_bytes=6400; memory.memsw.limit_in_bytes=9600; memory.soft_limit_in_bytes=100",
        "memory.swap.max=3200; memory.max=6400; memory.low=100",
    ),
    ({"memory": {"reservation": 0, "disableOOMKiller": False}}, "memory.oom_control=0", "memory.low=0"),
    ({"memory": {"limit": -1}}, "memory.limit_in_bytes=-1", "memory.swap.max=max; memory.max=max"),
    ({"memory": {"kernel": 5, "useHierarchy": True}}, "", ""),
    ({"pids": {"limit": 0}}, "pids.max=0", "pids.max=0"),
    ({"pids": {"limit": -1}}, "pids.max=max", "pids.max=max"),
    ({"pids": {}}, "", ""),
    (
        {"blockIO": {"weight": 1000, "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 600}]}},
        "blkio.bfq.weight=1000; blkio.throttle.read_bps_device=8:0 600",
        "io.weight=default 10000; io.max=8:0 rbps=600",
    ),
    (
        {"hugepageLimits": [{"pageSize": "2MB", "limit": 4096}]},
        "hugetlb.2MB.limit_in_bytes=4096",
        "hugetlb.2MB.max=4096; hugetlb.2MB.rsvd.max=4096",
    ),
]


@pytest.mark.parametrize(("resources", "on_v1", "on_v2"), CASES)
def test_translation(resources: dict[str, Any], on_v1: str, on_v2: str) -> None:
    assert files(resources, V1) == on_v1
    assert files(resources, V2) == on_v2


def test_what_is_on_v2_only() -> None:
    resources = {
        "rdma": {"mlx5_0": {"hcaHandles": 3}},
        "unified": {"memory.high": "5", "io.max": "8:0 rbps=1\n8:1 rbps=2"},
    }
    assert files(resources, V2) == ("rdma.max=mlx5_0 hca_handle=3; memory.high=5; io.max=8:0 rbps=1; io.max=8:1 rbps=2")


@pytest.mark.parametrize(
    ("resources", "layout", "controller", "field"),
    [
        ({"memory": {"limit": 1}}, BARE, "memory", "memory.limit"),
        ({"cpu": {"shares": 2}}, BARE, "cpu", "cpu.shares"),
        ({"pids": {"limit": 5}}, BARE, "pids", "pids.limit"),
        ({"blockIO": {"weight": 10}}, BARE, "io", "blockIO.weight"),
        ({"hugepageLimits": [{"pageSize": "2MB", "limit": 5}]}, BARE, "hugetlb", "hugepageLimits"),
        ({"unified": {"memory.high": "5"}}, BARE, "memory", "unified.memory.high"),
        ({"unified": {"memory.high": "5"}}, V1, "memory (cgroup v2)", "unified.memory.high"),
        ({"memory": {"swappiness": 5}}, V2, "memory (cgroup v1)", "memory.swappiness"),
        ({"memory": {"disableOOMKiller": True}}, V2, "memory (cgroup v1)", "memory.disableOOMKiller"),
        ({"cpu": {"realtimeRuntime": 5}}, V2, "cpu (cgroup v1)", "cpu.realtimeRuntime"),
        ({"network": {"classID": 5}}, V1, "net_cls", "network.classID"),
        ({"rdma": {"x": {"hcaHandles": 1}}}, V1, "rdma", "rdma"),
    ],
)
def test_what_nothing_can_enforce(resources: dict[str, Any], layout: Layout, controller: str, field: str) -> None:
    with pytest.raises(MissingController) as caught:
        plan(resources, layout)
    assert (caught.value.controller, caught.value.field) == (controller, field)
    assert f"linux.resources.{field} cannot be enforced" in str(caught.value)


def test_taking_away_what_no_controller_gives_is_no_error() -> None:
    document = {"cpu": {"realtimeRuntime": 0}, "memory": {"reservation": 0, "disableOOMKiller": False}}
    assert files(document, BARE) == ""


def test_no_huge_pages_without_the_controller_is_what_the_kubelet_asks_for() -> None:
    assert files({"hugepageLimits": [{"pageSize": "2MB", "limit": 0}]}, BARE) == ""


@pytest.mark.parametrize("key", ["memory/high", "../memory.max", "memory"])
def test_a_unified_key_that_is_no_file_name(key: str) -> None:
    with pytest.raises(InvalidResources, match="unified"):
        plan({"unified": {key: "1"}}, V2)
