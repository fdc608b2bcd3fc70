"""The security context of a container, field by field, as the kernel shows it inside."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from cri.client import CriError
from cri.proto import api_pb2 as api
from images.build import regular
from runtime.linux.caps import bounding_mask, mask
from runtime.linux.lsm import apparmor_enabled, selinux_enabled
from tests.support.asking import output, refused, security
from tests.support.crid import Crid
from tests.support.images import busybox_rootfs, push_image
from tests.support.registry import Registry

PASSWD = b"root:x:0:0::/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n"
GROUP = b"root:x:0:\napp:x:1001:\nextra:x:50000:app\n"
GRANTABLE = bounding_mask()


# Users and groups.


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def accounts(daemon: Crid, registry: Registry) -> str:
    files = [regular("etc/passwd", PASSWD), regular("etc/group", GROUP)]
    pushed = push_image(registry, "accounts:1", [busybox_rootfs(), files], {"Cmd": ["sh"], "User": "app"})
    await daemon.cri.PullImage(image={"image": pushed.ref})
    return pushed.ref


@pytest.mark.parametrize(
    ("fields", "seen", "groups"),
    [
        ({}, ["1000", "1001", "1001 50000"], [1001, 50000]),
        ({"supplemental_groups": [7]}, ["1000", "1001", "1001 7 50000"], [1001, 50000, 7]),
        ({"supplemental_groups": [7], "supplemental_groups_policy": api.Strict}, ["1000", "1001", "1001 7"], [1001, 7]),
        ({"run_as_username": "app", "run_as_group": {"value": 9}}, ["1000", "9", "9 50000"], [9, 50000]),
        ({"run_as_user": {"value": 4242}}, ["4242", "0", "0"], [0]),
        ({"run_as_user": {"value": 0}}, ["0", "0", "0"], [0]),
    ],
)
async def test_users_and_groups_are_told_as_they_are(
    crid: Crid, accounts: str, fields: dict[str, Any], seen: list[str], groups: list[int]
) -> None:
    pod = await crid.run_pod()
    id = await crid.run(pod, accounts, ["sh", "-c", "id -u; id -g; id -G"], linux=security(**fields))
    user = (await crid.ended(id)).user.linux
    assert crid.log_of(pod[1]).splitlines() == seen
    assert [str(user.uid), str(user.gid), list(user.supplemental_groups)] == [*seen[:2], groups]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"run_as_group": {"value": 5}}, "run_as_group is set without run_as_user"),
        ({"run_as_user": {"value": 1}, "run_as_username": "app"}, "both set"),
        ({"run_as_user": {"value": 1 << 31}}, "outside"),
        ({"run_as_user": {"value": -1}}, "outside"),
        ({"run_as_username": "1000"}, "no user name"),
        ({"run_as_username": "ghost"}, "not in /etc/passwd"),
        ({"supplemental_groups": [-5]}, "outside"),
    ],
)
async def test_users_that_are_none(crid: Crid, accounts: str, fields: dict[str, Any], words: str) -> None:
    await refused(crid, accounts, words, linux=security(**fields))


# Capabilities.


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"add_capabilities": ["ALL"]}, GRANTABLE),
        ({"add_capabilities": ["ALL"], "drop_capabilities": ["CAP_NET_RAW"]}, GRANTABLE & ~mask(["CAP_NET_RAW"])),
        ({"add_capabilities": ["cap_net_admin"], "drop_capabilities": ["all"]}, mask(["CAP_NET_ADMIN"])),
        ({"drop_capabilities": ["ALL"]}, 0),
    ],
)
async def test_capabilities(crid: Crid, busybox: str, fields: dict[str, Any], expected: int) -> None:
    script = "grep Cap /proc/self/status"
    lines = dict(line.split() for line in await output(crid, busybox, script, linux=security(capabilities=fields)))
    seen = {name: int(value, 16) for name, value in lines.items()}
    assert seen == {"CapInh:": 0, "CapPrm:": expected, "CapEff:": expected, "CapBnd:": expected, "CapAmb:": 0}


async def test_ambient_capabilities_work_for_a_user(crid: Crid, busybox: str) -> None:
    wanted = {"add_ambient_capabilities": ["NET_BIND_SERVICE", "CHOWN"], "drop_capabilities": ["ALL"]}
    linux = security(capabilities=wanted, run_as_user={"value": 1000})
    script = "touch /tmp/x; chown 5:6 /tmp/x && stat -c %u:%g /tmp/x; grep CapAmb /proc/self/status | cut -f2"
    script = f"cd /dev/shm; {script.replace('/tmp/', '')}"
    assert await output(crid, busybox, script, linux=linux) == [
        "5:6",
        f"{mask(['CAP_CHOWN', 'CAP_NET_BIND_SERVICE']):016x}",
    ]


async def test_no_capability_by_that_name(crid: Crid, busybox: str) -> None:
    await refused(crid, busybox, "'FLY' is no capability", linux=security(capabilities={"add_capabilities": ["FLY"]}))


# Paths of the kernel's file systems.


async def test_masked_and_read_only_paths_of_the_request(crid: Crid, busybox: str) -> None:
    linux = security(masked_paths=["/proc/uptime", "/bin/vi", "/sys/kernel"], readonly_paths=["/proc/sys", "/usr"])
    script = "wc -c < /proc/uptime; ls /sys/kernel | wc -l; echo 1 > /proc/sys/kernel/panic || echo ro;"
    script += "wc -c < /proc/version"
    lines = [line for line in await output(crid, busybox, script, linux=linux) if "can't" not in line]
    assert lines[:3] == ["0", "0", "ro"]
    assert int(lines[3]) > 0


async def test_unmasked_only_in_a_user_namespace(crid: Crid, busybox: str) -> None:
    """KEP-4265: procMount Unmasked comes as two empty lists, and Kubernetes allows it with hostUsers: false only."""
    ids = {"host_id": 4_000_000, "container_id": 0, "length": 65536}
    users = {"userns_options": {"mode": api.POD, "uids": [ids], "gids": [ids]}, "pid": api.CONTAINER}
    script = "awk '{print $5}' /proc/self/mountinfo | grep -c '^/proc/'"
    plain = await output(crid, busybox, script)
    mapped = await crid.run_pod(linux=security(namespace_options=users))
    assert int(plain[0]) > 5
    assert await output(crid, busybox, script, pod=mapped) == ["0"]


# Seccomp.


async def test_seccomp_of_this_node(crid: Crid, busybox: str, tmp_path: Path) -> None:
    profile = tmp_path / "profile.json"
    rule = {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 98}
    profile.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}))
    localhost = {"profile_type": api.SecurityProfile.Localhost, "localhost_ref": str(profile)}
    script = "grep ^Seccomp: /proc/self/status | cut -f2; mkdir /x 2>&1 | grep -o 'in use'"
    for linux in (security(seccomp=localhost), security(seccomp_profile_path=f"localhost/{profile}")):
        assert await output(crid, busybox, script, linux=linux) == ["2", "in use"]
    both = security(
        seccomp={"profile_type": api.SecurityProfile.Unconfined}, seccomp_profile_path=f"localhost/{profile}"
    )
    assert await output(crid, busybox, script, linux=both) == ["0"]
    missing = {**localhost, "localhost_ref": str(tmp_path / "none")}
    await refused(crid, busybox, "none", "NOT_FOUND", linux=security(seccomp=missing))
    pod = await crid.run_pod(linux=security(privileged=True))
    assert await output(crid, busybox, script, pod=pod, linux=security(seccomp=localhost, privileged=True)) == ["0"]


# Sysctls.


@pytest.mark.parametrize("value", ["1+2", "a=b", "1\n2", "|/bin/x", "1;2"])
async def test_values_of_sysctls_that_mean_more(crid: Crid, value: str) -> None:
    """CVE-2022-0811."""
    with pytest.raises(CriError, match=r"kernel\.shm_rmid_forced.*characters") as caught:
        await crid.run_pod(linux={"sysctls": {"kernel.shm_rmid_forced": value}})
    assert caught.value.code == "INVALID_ARGUMENT"


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("net.ipv4.ip_local_port_range", "60000 50000", "Invalid argument"),
        ("kernel.shmmax", "much", "Invalid argument"),
        ("net.ipv4.no_such_thing", "1", "No such file or directory"),
    ],
)
async def test_sysctls_that_the_kernel_does_not_take(crid: Crid, name: str, value: str, why: str) -> None:
    with pytest.raises(CriError) as caught:
        await crid.run_pod(linux={"sysctls": {name: value}})
    assert f"the kernel does not take {value!r} for sysctl {name}: {why}" in caught.value.details
    assert caught.value.code == "INVALID_ARGUMENT"
    assert not (await crid.cri.ListPodSandbox()).items


async def test_a_list_of_ports_is_a_value(crid: Crid, busybox: str) -> None:
    pod = await crid.run_pod(linux={"sysctls": {"net.ipv4.ip_local_reserved_ports": "8080,9000-9010"}})
    assert await output(crid, busybox, "cat /proc/sys/net/ipv4/ip_local_reserved_ports", pod=pod) == ["8080,9000-9010"]


@pytest.mark.parametrize(
    ("options", "name"), [({"network": api.NODE}, "net.ipv4.ip_forward"), ({"ipc": api.NODE}, "kernel.shmmax")]
)
async def test_sysctls_of_the_host(crid: Crid, options: dict[str, int], name: str) -> None:
    """CVE-2022-0532."""
    with pytest.raises(CriError, match="would change the host"):
        await crid.run_pod(linux={"sysctls": {name: "1"}, **security(namespace_options=options)})


# AppArmor and SELinux.


@pytest.mark.skipif(apparmor_enabled(), reason="this kernel has AppArmor: critest's specs of it run")
async def test_a_kernel_without_apparmor(crid: Crid, busybox: str) -> None:
    profile = api.SecurityProfile
    for kind in (profile.RuntimeDefault, profile.Unconfined):
        linux = security(apparmor={"profile_type": kind})
        assert await output(crid, busybox, "echo runs", linux=linux) == ["runs"]
    named = {"profile_type": profile.Localhost, "localhost_ref": "strict"}
    await refused(crid, busybox, "'strict'.*without AppArmor", "FAILED_PRECONDITION", linux=security(apparmor=named))
    text = security(apparmor_profile="localhost/strict")
    await refused(crid, busybox, "'strict'.*without AppArmor", "FAILED_PRECONDITION", linux=text)


@pytest.mark.skipif(selinux_enabled(), reason="this kernel has SELinux")
async def test_a_kernel_without_selinux(crid: Crid, busybox: str, tmp_path: Path) -> None:
    options = {"type": "container_t", "level": "s0:c1,c2"}
    mounts = [{"container_path": "/v", "host_path": str(tmp_path), "selinux_relabel": True}]
    assert await output(crid, busybox, "echo runs", mounts=mounts, linux=security(selinux_options=options)) == ["runs"]
    await refused(crid, busybox, "selinux_options.level", linux=security(selinux_options={"level": "top secret"}))
    info = json.loads((await crid.cri.Status(verbose=True)).info["security"])
    assert info.items() >= {"apparmor": apparmor_enabled(), "selinux": False, "user_namespaces": True}.items()
