"""Requests that cannot be granted are refused by the name of the field, before anything is made, never as a fault."""

from __future__ import annotations

from typing import Any

import pytest

from cri.client import CriError
from cri.proto import api_pb2 as api
from tests.support.crid import Crid
from tests.support.images import busybox_rootfs, push_image
from tests.support.registry import Registry

PODS: list[tuple[dict[str, Any], str]] = [
    ({"log_directory": "/tmp/\0x"}, "log_directory"),
    ({"port_mappings": [{"host_port": 80, "container_port": 80, "host_ip": "localhost"}]}, "host_ip"),
    ({"port_mappings": [{"host_port": 80, "container_port": 80, "protocol": 9}]}, "protocol 9"),
    ({"port_mappings": [{"host_port": 65536, "container_port": 80}]}, "outside"),
    ({"linux": {"cgroup_parent": "/kubepods.slice"}}, "cgroup driver here is cgroupfs"),
    ({"linux": {"cgroup_parent": "/a\nb"}}, "cgroup_parent"),
    ({"linux": {"cgroup_parent": "/a/../b"}}, "cgroup_parent"),
    ({"hostname": "a\nb"}, "hostname"),
    ({"dns_config": {"servers": ["1.1.1.1\noptions"]}}, "dns_config"),
]


@pytest.mark.parametrize(("fields", "words"), PODS)
async def test_pods(crid: Crid, fields: dict[str, Any], words: str) -> None:
    with pytest.raises(CriError, match=words) as caught:
        await crid.run_pod(**fields)
    assert caught.value.code == "INVALID_ARGUMENT"
    assert "taking it back" not in caught.value.details


def security(**fields: Any) -> dict[str, Any]:
    return {"linux": {"security_context": fields}}


def resources(**fields: Any) -> dict[str, Any]:
    return {"linux": {"resources": fields}}


def mount(**fields: Any) -> dict[str, Any]:
    return {"mounts": [{"container_path": "/v", "host_path": "/tmp", **fields}]}


LOCALHOST = api.SecurityProfile.Localhost
CONTAINERS: list[tuple[dict[str, Any], str]] = [
    ({"working_dir": "/a\0b"}, "working directory"),
    ({"log_path": "../x"}, "log_path"),
    ({"log_path": "/x"}, "log_path"),
    ({"log_path": "a\0b"}, "log_path"),
    ({"stop_signal": 99}, "stop_signal 99"),
    ({"devices": [{"host_path": "/dev/\0", "container_path": "/dev/x"}]}, "NUL"),
    ({"devices": [{"host_path": "/etc/passwd", "container_path": "/dev/x"}]}, "neither a device node"),
    ({"devices": [{"host_path": "/dev/null", "container_path": "x"}]}, "not absolute"),
    ({"devices": [{"host_path": "/dev/null", "container_path": "/dev/x", "permissions": "rx"}]}, "permissions"),
    (mount(host_path="/tmp/\0"), "not an absolute path"),
    (mount(container_path="/v\0"), "NUL"),
    (mount(propagation=7), "unknown propagation"),
    (security(masked_paths=["/a\0"]), "not an absolute path"),
    (security(readonly_paths=["a"]), "not an absolute path"),
    (security(supplemental_groups_policy=5), "neither Merge nor Strict"),
    (security(seccomp={"profile_type": 9}), "profile_type 9"),
    (security(seccomp={"profile_type": LOCALHOST}), "localhost_ref is empty"),
    (security(seccomp={"profile_type": LOCALHOST, "localhost_ref": "p.json"}), "no absolute path"),
    (security(seccomp={"profile_type": LOCALHOST, "localhost_ref": "/tmp"}), "not a regular file"),
    (security(seccomp={"profile_type": LOCALHOST, "localhost_ref": "/etc/passwd"}), "not JSON"),
    (resources(hugepage_limits=[{"page_size": "../x", "limit": 1}]), "page_size"),
    (resources(memory_swap_limit_in_bytes=1 << 20), "set both"),
    (resources(memory_limit_in_bytes=1 << 20, memory_swap_limit_in_bytes=-2), "-1 lifts"),
    (resources(memory_limit_in_bytes=-1), "leave it 0"),
    (resources(cpu_shares=-5), "cpu_shares"),
    (resources(cpu_quota=-2), "cpu_quota"),
    (resources(cpu_quota=999), "cpu_quota"),
    (resources(cpu_period=10), "cpu_period"),
    (resources(unified={"../x": "1"}), "unified key"),
    (resources(oom_score_adj=2000), "oom_score_adj"),
    (resources(memory_limit_in_bytes=2 << 20, memory_swap_limit_in_bytes=1 << 20), "memory and swap together"),
]


@pytest.mark.parametrize(("fields", "words"), CONTAINERS)
async def test_containers(crid: Crid, busybox: str, fields: dict[str, Any], words: str) -> None:
    with pytest.raises(CriError, match=words) as caught:
        await crid.create(await crid.run_pod(), busybox, ["true"], **fields)
    assert caught.value.code == "INVALID_ARGUMENT"


@pytest.mark.parametrize("fields", [resources(unified={"no.such": "1"}), resources(cpuset_cpus="4000")])
async def test_a_limit_that_the_start_cannot_make_ends_the_container(
    crid: Crid, busybox: str, fields: dict[str, Any]
) -> None:
    """EXITED, as after any failed start: a client that finds it CREATED would wait for it or start it again."""
    id = await crid.create(await crid.run_pod(), busybox, ["true"], **fields)
    with pytest.raises(CriError) as caught:
        await crid.cri.StartContainer(container_id=id)
    assert caught.value.code in ("FAILED_PRECONDITION", "INVALID_ARGUMENT")
    status = await crid.status(id)
    assert (status.state, status.exit_code, status.reason) == (api.CONTAINER_EXITED, 128, "StartError")
    assert "linux.resources" in status.message


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"working_dir": "/etc/passwd"}, r"Not a directory; openat2\(\d+, etc/passwd, ..., 24\)"),
        (mount(container_path="/etc", host_path="/etc/passwd"), "bind /etc/passwd on /etc"),
    ],
)
async def test_a_path_that_is_something_else(crid: Crid, busybox: str, fields: dict[str, Any], words: str) -> None:
    id = await crid.create(await crid.run_pod(), busybox, ["true"], **fields)
    with pytest.raises(CriError, match=words) as caught:
        await crid.cri.StartContainer(container_id=id)
    assert caught.value.code == "FAILED_PRECONDITION"


async def test_a_stop_signal_that_the_interface_cannot_name(crid: Crid, registry: Registry) -> None:
    pushed = push_image(registry, "stops-by-32:1", [busybox_rootfs()], {"Cmd": ["true"], "StopSignal": "32"})
    await crid.cri.PullImage(image={"image": pushed.ref})
    status = await crid.status(await crid.create(await crid.run_pod(), pushed.ref, []))
    assert status.stop_signal == api.SIGNAL_RUNTIME_DEFAULT


@pytest.mark.parametrize("mode", [api.PROPAGATION_HOST_TO_CONTAINER, api.PROPAGATION_BIDIRECTIONAL])
async def test_propagation_from_a_mount_that_tells_nobody(crid: Crid, busybox: str, mode: int) -> None:
    with pytest.raises(CriError, match="make-rshared") as caught:
        await crid.create(await crid.run_pod(), busybox, ["true"], **mount(host_path="/proc/fs", propagation=mode))
    assert caught.value.code == "FAILED_PRECONDITION"
