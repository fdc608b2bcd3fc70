"""From an OCI config to steps: their order, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from runtime.errors import InvalidSpec, StartError
from runtime.linux.cgroups import Cgroup, Layout
from runtime.linux.mountapi import MOUNT_ATTR__ATIME, MOUNT_ATTR_NOATIME, MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY
from runtime.linux.mountoptions import MountOptions
from runtime.processplan import plan_process
from runtime.rootfs import plan, tree_of
from runtime.spec import ContainerSpec
from runtime.tree import Step

UNIFIED = Layout({}, "/sys/fs/cgroup", frozenset({"memory"}))
HYBRID = Layout({"memory": "/sys/fs/cgroup/memory", "cpu": "/sys/fs/cgroup/cpu"}, "/sys/fs/cgroup/unified", frozenset())


def spec(mounts: list[dict[str, Any]], **fields: Any) -> ContainerSpec:
    linux = fields.pop("linux", {})
    return ContainerSpec("c", "s", {"process": {"args": ["a"]}, "mounts": mounts, "linux": linux}, "/image", **fields)


def described(steps: list[Step]) -> list[str]:
    return [step.describe() for step in steps]


def test_sources_are_opened_before_anything_is_isolated() -> None:
    mounts = [
        {"destination": "/proc", "type": "proc"},
        {"destination": "/data", "source": "/srv/data", "options": ["rbind", "rshared"]},
    ]
    steps = described(plan(tree_of(spec(mounts)), Cgroup("/c", UNIFIED)))
    assert steps[:5] == [
        "open mount source /srv/data",
        "make all inherited mounts slaves of the host's",
        "mount /image as the root filesystem",
        "mount proc on /proc",
        "bind /srv/data on /data",
    ]


def test_protections_come_after_everything_else() -> None:
    linux = {"maskedPaths": ["/proc/kcore"], "readonlyPaths": ["/proc/sys"]}
    steps = described(plan(tree_of(spec([], rootfs_readonly=True, linux=linux)), Cgroup("/c", UNIFIED)))
    assert steps[-3:] == ["mask /proc/kcore", "make /proc/sys read-only", "make the root filesystem read-only"]


def test_cgroups_on_a_unified_and_on_a_hybrid_host() -> None:
    mounts = [{"destination": "/sys/fs/cgroup", "type": "cgroup", "options": ["ro"]}]
    assert "mount cgroup2 on /sys/fs/cgroup" in described(plan(tree_of(spec(mounts)), Cgroup("/pod/c", UNIFIED)))
    hybrid = described(plan(tree_of(spec(mounts)), Cgroup("/pod/c", HYBRID)))
    assert "bind /sys/fs/cgroup/memory/pod/c on /sys/fs/cgroup/memory" in hybrid
    assert "bind /sys/fs/cgroup/unified/pod/c on /sys/fs/cgroup/unified" in hybrid


def test_nothing_is_made_in_a_dev_of_the_host() -> None:
    mounts = [{"destination": "/dev", "source": "/dev", "options": ["rbind"]}]
    assert not any("device" in step for step in described(plan(tree_of(spec(mounts)), Cgroup("/c", UNIFIED))))


@pytest.mark.parametrize(
    "mount",
    [
        {"destination": "relative", "type": "tmpfs"},
        {"type": "tmpfs"},
        {"destination": "/x", "type": "nfs", "source": "server:/x"},
        {"destination": "/x", "type": "bind", "source": "relative"},
        {"destination": "/x", "options": ["bind"]},
    ],
)
def test_refused_mounts(mount: dict[str, Any]) -> None:
    with pytest.raises(InvalidSpec):
        plan(tree_of(spec([mount])), Cgroup("/c", UNIFIED))


def test_mount_options() -> None:
    options = MountOptions.parse(["rbind", "ro", "rnosuid", "noatime", "rslave", "size=1m", "huge", "defaults"])
    assert options.bind and options.recursive
    assert options.set_ == MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOATIME
    assert options.clear == MOUNT_ATTR__ATIME
    assert options.recursive_set == MOUNT_ATTR_NOSUID
    assert options.propagation == 1 << 19 and options.propagation_recursive
    assert options.data == (("size", "1m"), ("huge", None))


def test_the_last_option_wins() -> None:
    assert MountOptions.parse(["ro", "rw"]).set_ == 0
    assert MountOptions.parse(["ro", "rw"]).clear == MOUNT_ATTR_RDONLY
    assert MountOptions.parse(["rw", "ro"]).clear == 0


def prepared(**fields: Any) -> Any:
    return plan_process({"args": ["a"], **fields}, "c", "", terminal=False)


def test_a_process() -> None:
    plan = prepared(env=["PATH=/a:/b", "X=1"], user={"uid": 1, "gid": 2, "additionalGids": [3]})
    assert plan.search == ["/a", "/b"]
    assert (plan.uid, plan.gid, plan.groups, plan.umask, plan.cwd) == (1, 2, [3], 0o022, "/")
    assert plan.args == ["a"] and plan.env == ["PATH=/a:/b", "X=1"]
    assert type(plan)._make(json.loads(json.dumps(plan))) == plan


def test_the_last_path_counts_and_there_is_a_default() -> None:
    assert prepared(env=["PATH=/a", "PATH=.:/b:relative"]).search == ["/b"]
    assert "/usr/bin" in prepared().search


def test_unlimited_rlimits() -> None:
    unlimited = 2**64 - 1
    (limit,) = prepared(rlimits=[{"type": "RLIMIT_CORE", "soft": 0, "hard": unlimited}]).rlimits
    assert limit[2:] == (0, -1)


@pytest.mark.parametrize(
    "fields",
    [
        {"args": ["a\0"]},
        {"cwd": "/a\0"},
        {"user": {"uid": -1}},
        {"user": {"uid": 0, "gid": 2**32 - 1}},
        {"user": {"uid": 0, "additionalGids": ["0"]}},
        {"rlimits": [{"type": "RLIMIT_X", "soft": 1, "hard": 1}]},
        {"rlimits": [{"type": "setrlimit", "soft": 1, "hard": 1}]},
        {"capabilities": {"effective": ["CAP_X"]}},
    ],
)
def test_refused_processes(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidSpec):
        prepared(**fields)


def test_no_command() -> None:
    with pytest.raises(StartError):
        prepared(args=[])


def test_a_filter_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "filter").write_bytes(b"123")
    with pytest.raises(InvalidSpec):
        plan_process({"args": ["a"]}, "c", str(tmp_path / "filter"), terminal=False)
