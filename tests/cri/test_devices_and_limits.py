"""Devices and resources of a container, as its device filter and its cgroups have them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from cri.client import CriError
from runtime.linux.cgroups import MissingController, detect
from tests.support.asking import output, refused
from tests.support.crid import Crid


@pytest.mark.skipif(not os.path.exists("/dev/fuse"), reason="no /dev/fuse here: a device that is not for everybody")
async def test_the_device_filter(crid: Crid, busybox: str) -> None:
    devices = [
        {"container_path": "/dev/reads", "host_path": "/dev/zero", "permissions": "r"},
        {"container_path": "/dev/other", "host_path": "/dev/fuse", "permissions": "r"},
    ]
    script = "head -c 1 /dev/reads | wc -c; mknod /n c 1 1 && head -c 1 /n > /dev/null || echo denied;"
    script += "test -c /dev/other && echo there; exec 3< /dev/other && echo readable;"
    script += "(exec 3> /dev/other) || echo not writable"
    lines = await output(crid, busybox, script, devices=devices)
    assert [line for line in lines if ":" not in line] == ["1", "denied", "there", "readable", "not writable"]


def limit_file(crid: Crid, id: str, controller: str, *names: str) -> str:
    """The content of the container's cgroup file, whose name depends on the version of the hierarchy."""
    layout = detect()
    base = layout.v1.get(controller) or layout.v2
    directory = next(path for path in Path(base).rglob(id) if path.is_dir())
    return next((directory / name).read_text().strip() for name in names if (directory / name).exists())


async def test_limits_are_in_the_kernel(crid: Crid, busybox: str) -> None:
    resources = {
        "cpu_shares": 512,
        "memory_limit_in_bytes": 64 << 20,
        "memory_swap_limit_in_bytes": 96 << 20,
        "cpuset_cpus": "0",
        "oom_score_adj": 777,
    }
    id = await crid.run(await crid.run_pod(), busybox, ["sleep", "1000"], linux={"resources": resources})
    assert limit_file(crid, id, "memory", "memory.limit_in_bytes", "memory.max") == str(64 << 20)
    swap = limit_file(crid, id, "memory", "memory.memsw.limit_in_bytes", "memory.swap.max")
    assert int(swap) in (96 << 20, 32 << 20)  # with the memory in v1, without it in v2
    assert limit_file(crid, id, "cpu", "cpu.shares", "cpu.weight") in ("512", "59")
    assert limit_file(crid, id, "cpuset", "cpuset.cpus") == "0"
    assert (await crid.exec(id, "cat", "/proc/1/oom_score_adj", "/proc/self/oom_score_adj"))[1].split()[-1] == "777"


async def test_huge_pages_are_limited_or_refused_by_name(crid: Crid, busybox: str) -> None:
    limits = [{"page_size": "2MB", "limit": 4 << 20}]
    id = await crid.create(
        await crid.run_pod(), busybox, ["sleep", "1000"], linux={"resources": {"hugepage_limits": limits}}
    )
    try:
        version = detect().version("hugetlb")
    except MissingController:
        version = 0
    if version:
        await crid.cri.StartContainer(container_id=id)
        names = ("hugetlb.2MB.max", "hugetlb.2MB.limit_in_bytes")
        assert limit_file(crid, id, "hugetlb", *names) == str(4 << 20)
    else:
        with pytest.raises(CriError, match="hugetlb"):
            await crid.cri.StartContainer(container_id=id)


@pytest.mark.parametrize(
    ("resources", "words"),
    [
        ({"oom_score_adj": 1001}, "outside -1000..1000"),
        ({"memory_limit_in_bytes": -1}, "memory_limit_in_bytes is -1"),
        ({"memory_limit_in_bytes": 100 << 20, "memory_swap_limit_in_bytes": 50 << 20}, "memory and swap together"),
        ({"unified": {"../memory.max": "1"}}, "no cgroup v2 file name"),
    ],
)
async def test_resources_that_mean_nothing(crid: Crid, busybox: str, resources: dict[str, Any], words: str) -> None:
    await refused(crid, busybox, words, linux={"resources": resources})
