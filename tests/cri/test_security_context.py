"""Security context, mounts and resources of a container, field by field, as the kernel shows them inside."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from cri.client import CriError
from cri.proto import api_pb2 as api
from images.build import regular
from runtime.linux.caps import bounding_mask, mask
from runtime.linux.cgroups import MissingController, detect
from runtime.linux.lsm import apparmor_enabled, selinux_enabled
from tests.support.crid import Crid, Sandbox
from tests.support.images import busybox_rootfs, push_image
from tests.support.registry import Registry

PASSWD = b"root:x:0:0::/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n"
GROUP = b"root:x:0:\napp:x:1001:\nextra:x:50000:app\n"
GRANTABLE = bounding_mask()


def security(**fields: Any) -> dict[str, Any]:
    return {"security_context": fields}


async def output(crid: Crid, image: str, script: str, /, pod: Sandbox | None = None, **fields: Any) -> list[str]:
    """The lines that a shell script writes to the log."""
    pod = pod or await crid.run_pod()
    await crid.ended(await crid.run(pod, image, ["sh", "-c", script], **fields))
    return crid.log_of(pod[1]).splitlines()


async def refused(crid: Crid, image: str, words: str, code: str = "INVALID_ARGUMENT", **fields: Any) -> None:
    with pytest.raises(CriError, match=words) as caught:
        await crid.create(await crid.run_pod(), image, ["true"], **fields)
    assert caught.value.code == code


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


# Mounts.


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Path]:
    """A directory that is a shared mount, with a tmpfs in it; whatever is mounted below is gone afterwards."""
    place = tmp_path / "shared"
    place.mkdir()
    run = ["mount", "--bind", str(place), str(place)]
    subprocess.run(run, check=True, timeout=10)
    try:
        subprocess.run(["mount", "--make-shared", str(place)], check=True, timeout=10)
        (place / "sub").mkdir()
        mount_tmpfs(place / "sub")
        (place / "late").mkdir()
        (place / "inside").mkdir()
        yield place
    finally:
        for name in ("late", "inside", "sub", ""):
            with contextlib.suppress(subprocess.CalledProcessError):
                subprocess.run(["umount", "-l", str(place / name)], check=True, timeout=10, stderr=subprocess.DEVNULL)


def mount_tmpfs(place: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "test", str(place)], check=True, timeout=10)


@pytest.mark.parametrize(
    ("mode", "arrives", "leaves"),
    [
        (api.PROPAGATION_PRIVATE, False, False),
        (api.PROPAGATION_HOST_TO_CONTAINER, True, False),
        (api.PROPAGATION_BIDIRECTIONAL, True, True),
    ],
)
async def test_propagation(crid: Crid, busybox: str, shared: Path, mode: int, arrives: bool, leaves: bool) -> None:
    pod = await crid.run_pod(linux=security(privileged=True))
    mounts = [{"container_path": "/v", "host_path": str(shared), "propagation": mode}]
    id = await crid.run(pod, busybox, ["sleep", "1000"], mounts=mounts, linux=security(privileged=True))
    mount_tmpfs(shared / "late")
    code, seen, _ = await crid.exec(id, "sh", "-c", "mount -t tmpfs x /v/inside && cat /proc/self/mounts")
    assert code == 0
    assert " /v/sub " in seen
    assert (" /v/late " in seen) == arrives
    assert (f" {shared}/inside " in Path("/proc/self/mounts").read_text()) == leaves


async def test_recursive_read_only(crid: Crid, busybox: str, shared: Path) -> None:
    plain = {"container_path": "/ro", "host_path": str(shared), "readonly": True}
    mounts = [plain, {**plain, "container_path": "/rro", "recursive_read_only": True}]
    script = (
        "touch /ro/x || echo ro; touch /ro/sub/x && echo sub; touch /rro/sub/y || echo rro; touch /rro/y || echo top"
    )
    lines = await output(crid, busybox, script, mounts=mounts)
    assert [line for line in lines if ":" not in line] == ["ro", "sub", "rro", "top"]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"recursive_read_only": True}, "needs readonly and PROPAGATION_PRIVATE"),
        (
            {"recursive_read_only": True, "readonly": True, "propagation": api.PROPAGATION_HOST_TO_CONTAINER},
            "needs readonly and PROPAGATION_PRIVATE",
        ),
        (
            {"recursive_read_only": True, "readonly": True, "propagation": api.PROPAGATION_BIDIRECTIONAL},
            "needs readonly and PROPAGATION_PRIVATE",
        ),
        ({"mount_options": ["suid"]}, "are not of nodev, noexec, nosuid"),
        ({"mount_options": ["noexec", "context=x"]}, "are not of nodev, noexec, nosuid"),
    ],
)
async def test_mounts_that_contradict_themselves(crid: Crid, busybox: str, fields: dict[str, Any], words: str) -> None:
    mount = {"container_path": "/v", "host_path": "/tmp", **fields}
    await refused(crid, busybox, words, mounts=[mount])


async def test_mount_options(crid: Crid, busybox: str, tmp_path: Path) -> None:
    """KEP-5855."""
    (tmp_path / "program").write_text("#!/bin/sh\necho ran\n")
    (tmp_path / "program").chmod(0o755)
    os.mknod(tmp_path / "null", 0o20666, os.makedev(1, 3))
    options: list[list[str]] = [[], ["noexec"], ["nodev"], ["nosuid"], ["noexec", "nodev", "nosuid"]]
    mounts = [
        {"container_path": f"/v{number}", "host_path": str(tmp_path), "mount_options": words}
        for number, words in enumerate(options)
    ]
    script = "for n in 0 1 2 3 4; do /v$n/program || echo no; cat /v$n/null && echo dev || echo no; done 2> /dev/null;"
    script += "awk '$5 ~ /^.v[0-9]$/ {print $5, $6}' /proc/self/mountinfo | sort"
    lines = await output(crid, busybox, script, mounts=mounts)
    assert lines[:10] == ["ran", "dev", "no", "dev", "ran", "no", "ran", "dev", "no", "no"]
    for seen, words in zip(lines[10:], options, strict=True):
        assert set(words) <= set(seen.split()[1].split(","))


async def test_sources_that_are_links_or_missing(crid: Crid, busybox: str, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real/file").write_text("through two links")
    (tmp_path / "one").symlink_to("real")
    (tmp_path / "two").symlink_to(tmp_path / "one")
    (tmp_path / "nowhere").symlink_to("not/there")
    mounts = [{"container_path": "/v", "host_path": str(tmp_path / "two")}]
    assert await output(crid, busybox, "cat /v/file", mounts=mounts) == ["through two links"]
    for name in ("nowhere", "none"):
        mounts = [{"container_path": "/v", "host_path": str(tmp_path / name)}]
        await refused(crid, busybox, f"{name}' does not exist", "NOT_FOUND", mounts=mounts)
    assert not (tmp_path / "none").exists()


async def test_sub_paths_of_images(crid: Crid, busybox: str, registry: Registry) -> None:
    """KEP-4639, KEP-5365."""
    layers = [[regular("data/a", b"1"), regular("data/deep/b", b"2")], [regular("data/deep/c", b"3")]]
    pushed = push_image(registry, "subpaths:1", layers)
    await crid.cri.PullImage(image={"image": pushed.ref})
    mount = {"container_path": "/v", "image": {"image": pushed.ref}}
    lines = await output(
        crid, busybox, "cd /v; ls; touch x || echo ro", mounts=[{**mount, "image_sub_path": "data/deep"}]
    )
    assert {"b", "c", "ro"} <= set(lines)
    for path in ("no/such", "../etc", "/etc/../../x"):
        await refused(crid, busybox, "image_sub_path", "NOT_FOUND", mounts=[{**mount, "image_sub_path": path}])
    await refused(
        crid, busybox, "without an image", mounts=[{**mount, "image": {}, "host_path": "/", "image_sub_path": "x"}]
    )


# Devices.


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


# Resources.


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


# Logs.


@pytest.mark.parametrize("path", ["..", "../x", "/x", "a/../../x", "x\0y"])
async def test_log_paths_that_leave_the_pods_directory(crid: Crid, busybox: str, path: str) -> None:
    await refused(crid, busybox, "log_path", log_path=path)


async def test_a_log_in_a_directory_of_its_own(crid: Crid, busybox: str) -> None:
    pod = await crid.run_pod()
    await crid.ended(await crid.run(pod, busybox, ["echo", "hello"], log_path="deep/er/0.log"))
    assert Path(pod[1].log_directory, "deep/er/0.log").read_text().endswith("stdout F hello\n")


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
    assert info == {"apparmor": apparmor_enabled(), "selinux": False, "user_namespaces": True}
