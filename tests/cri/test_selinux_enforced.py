"""SELinux where the kernel enforces it: the labels of a container's processes and files, and what they keep apart.

The policy has to know the types of container-selinux; tests.vm loads a small one that does (tests/vm/policy.cil).
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from cri.proto import api_pb2 as api
from images.build import regular
from runtime.linux.lsm import SELINUX, selinux_enabled
from tests.support.asking import FOREVER, container_of, needs_user_namespaces, output, refused, security, streamed
from tests.support.crid import Crid, Sandbox
from tests.support.images import busybox_rootfs, push_image
from tests.support.registry import Registry

PROCESS = "system_u:system_r:container_t"
FILE = "system_u:object_r:container_file_t"
CURRENT = "/proc/self/attr/current"
IDS = {"host_id": 4_000_000, "container_id": 0, "length": 65536}
USERS = {"userns_options": {"mode": api.POD, "uids": [IDS], "gids": [IDS]}, "pid": api.CONTAINER}


def missing() -> str:
    """Why nothing can be seen here; "" where it can."""
    if not selinux_enabled():
        return "this kernel runs without SELinux; tests.vm boots one with it"
    if Path(SELINUX, "enforce").read_text() != "1":
        return "SELinux is permissive here: setenforce 1"
    try:
        Path(SELINUX, "context").write_text(f"{PROCESS}:s0:c1,c2")
    except OSError:
        return f"the policy has no {PROCESS} (container-selinux)"
    return ""


pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())


def process_label(pid: int) -> str:
    return Path(f"/proc/{pid}/attr/current").read_text().rstrip("\0\n")


def file_label(path: str | Path) -> str:
    return os.getxattr(path, "security.selinux").decode().rstrip("\0")


async def label_of(crid: Crid, id: str) -> str:
    return process_label(await crid.pid_of(id))


async def level_of(crid: Crid, id: str) -> str:
    """Such as s0:c1,c2."""
    return (await label_of(crid, id)).split(":", 3)[3]


def denials() -> list[str]:
    """What the kernel has logged of them; an audit daemon would take them away."""
    lines = subprocess.run(["dmesg"], capture_output=True, text=True, timeout=60, check=True).stdout.splitlines()
    return [line for line in lines if "avc:  denied" in line]


@pytest_asyncio.fixture(loop_scope="session")
async def pod(crid: Crid) -> Sandbox:
    return await crid.run_pod()


# Processes.


async def test_containers_of_a_pod_share_a_label_that_no_other_pod_has(crid: Crid, pod: Sandbox, busybox: str) -> None:
    ids = [await crid.run(pod, busybox, FOREVER, name=name, linux=security(no_new_privs=True)) for name in ("a", "b")]
    other = await container_of(crid, busybox)
    labels = [await label_of(crid, id) for id in (*ids, other)]
    assert labels[0] == labels[1] != labels[2]
    for label in labels:
        categories = label.removeprefix(f"{PROCESS}:s0:").split(",")
        assert len(set(categories)) == 2 and all(category.startswith("c") for category in categories)
    for id, label in zip((*ids, other), labels, strict=True):
        status, said, _ = await crid.exec(id, "cat", CURRENT)
        assert (status, said.rstrip("\0")) == (0, label)
        for tty in (False, True):
            assert (await streamed(crid, id, "cat", CURRENT, tty=tty)).rstrip(b"\0") == label.encode()


@pytest.mark.parametrize("of", ["pod", "container"])
async def test_the_options_of_the_request(crid: Crid, busybox: str, of: str) -> None:
    options = security(selinux_options={"type": "spc_t", "level": "s0:c7,c9"})
    pod = await crid.run_pod(linux=options if of == "pod" else {})
    id = await crid.run(pod, busybox, FOREVER, linux=options if of == "container" else {})
    assert await label_of(crid, id) == "system_u:system_r:spc_t:s0:c7,c9"
    assert file_label(f"/proc/{await crid.pid_of(id)}/root/bin") == f"{FILE}:s0:c7,c9"


async def test_a_context_that_the_policy_does_not_have(crid: Crid, busybox: str) -> None:
    words = "policy that this node runs has no SELinux context 'system_u:system_r:none_t:s0:c1,c2'"
    await refused(crid, busybox, words, linux=security(selinux_options={"type": "none_t", "level": "s0:c1,c2"}))


async def test_a_privileged_container_is_what_the_policy_makes_of_it(crid: Crid, busybox: str) -> None:
    pod = await crid.run_pod(linux=security(privileged=True))
    id = await crid.run(pod, busybox, FOREVER, linux=security(privileged=True))
    label = await label_of(crid, id)
    assert label.split(":")[2] == "spc_t"
    assert (await crid.exec(id, "cat", CURRENT))[1].rstrip("\0") == label
    assert (await crid.exec(id, "sh", "-c", "mkdir /m && mount -t tmpfs none /m"))[0] == 0


async def test_in_a_user_namespace(crid: Crid, busybox: str) -> None:
    await needs_user_namespaces(crid)
    pod = await crid.run_pod(linux=security(namespace_options=USERS))
    id = await crid.run(pod, busybox, FOREVER, linux=security(namespace_options=USERS))
    level = await level_of(crid, id)
    assert await label_of(crid, id) == f"{PROCESS}:{level}"
    assert (await crid.exec(id, "cat", CURRENT))[1].rstrip("\0") == f"{PROCESS}:{level}"
    script = "echo x > /new && cat /new && echo y > /dev/null && head -c 1 /dev/zero | wc -c && ls /dev/shm /dev/mqueue"
    assert (await crid.exec(id, "sh", "-c", script))[1].split() == ["x", "1", "/dev/mqueue:", "/dev/shm:"]
    assert file_label(f"/proc/{await crid.pid_of(id)}/root/new") == f"{FILE}:{level}"


async def test_a_terminal(crid: Crid, pod: Sandbox, busybox: str) -> None:
    script = "tty; echo written; echo known > /dev/tty"
    assert await output(crid, busybox, script, pod=pod, tty=True) == ["/dev/pts/0", "written", "known"]


async def test_a_volume_over_proc_unconfines_nobody(crid: Crid, busybox: str, tmp_path: Path) -> None:
    """CVE-2019-16884: files of the attacker's take what is written to them, and nothing happens."""
    for place in ("self", "thread-self"):
        (tmp_path / place / "attr").mkdir(parents=True)
        (tmp_path / place / "attr/exec").touch()
    mounts = [{"container_path": "/proc", "host_path": str(tmp_path), "selinux_relabel": True}]
    id = await container_of(crid, busybox, mounts=mounts)
    assert (await label_of(crid, id)).startswith(f"{PROCESS}:s0:c")
    assert not any(file.stat().st_size for file in tmp_path.rglob("exec"))


# Files.


async def test_every_file_of_a_container_is_its_pods(crid: Crid, pod: Sandbox, registry: Registry) -> None:
    files = [busybox_rootfs(), [regular("etc/own", b"own\n")]]
    pushed = push_image(registry, "declares:1", files, {"Cmd": ["sh"], "Volumes": {"/declared": {}}})
    await crid.cri.PullImage(image={"image": pushed.ref})
    linux = security(masked_paths=["/etc/own", "/usr"])
    id = await crid.run(pod, pushed.ref, FOREVER, linux=linux)
    root, level = f"/proc/{await crid.pid_of(id)}/root", await level_of(crid, id)
    assert (await crid.exec(id, "sh", "-c", "echo x > /new; echo x > /declared/new; echo x > /dev/shm/new"))[2] == ""
    places = ["", "bin/busybox", "new", "declared", "declared/new", "dev", "dev/null", "dev/pts", "dev/pts/ptmx"]
    places += ["dev/shm", "dev/shm/new", "dev/mqueue", "etc/hosts", "etc/resolv.conf", "etc/hostname", "usr"]
    labels = {place: file_label(f"{root}/{place}") for place in places}
    assert labels == dict.fromkeys(places, f"{FILE}:{level}")
    script = "ls /usr /dev/mqueue /dev/shm; cat /etc/own /etc/hostname; echo y >> /etc/hosts && echo written"
    status, said, error = await crid.exec(id, "sh", "-c", script)
    assert (status, error) == (0, "")
    assert said.split() == ["/dev/mqueue:", "/dev/shm:", "new", "/usr:", pod[1].hostname, "written"]


async def test_a_volume_is_the_nodes_until_it_is_relabelled(
    crid: Crid, pod: Sandbox, busybox: str, tmp_path: Path
) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/file").write_text("secret\n")
    mount = {"container_path": "/v", "host_path": str(tmp_path)}
    script = "cat /v/sub/file 2>&1; (echo x > /v/new) 2>/dev/null && echo written"
    [said] = await output(crid, busybox, script, pod=pod, mounts=[mount])
    assert "Permission denied" in said
    relabelled = [{**mount, "selinux_relabel": True}]
    id = await crid.run(pod, busybox, FOREVER, name="its", mounts=relabelled)
    assert (await crid.exec(id, "sh", "-c", script))[1].split() == ["secret", "written"]
    label = f"{FILE}:{await level_of(crid, id)}"
    assert file_label(tmp_path / "sub/file") == file_label(tmp_path / "new") == label
    # Another pod has other categories: what is mounted there without being relabelled stays the first one's.
    [said] = await output(crid, busybox, script, mounts=[mount])
    assert "Permission denied" in said
    assert any(f"scontext={PROCESS}:s0:c" in line and f"tcontext={label} " in line for line in denials())
    assert (await crid.exec(id, "cat", "/v/sub/file"))[1] == "secret\n"


@pytest.mark.parametrize("options", [{}, USERS], ids=["", "in a user namespace"])
async def test_volumes_that_are_images(crid: Crid, busybox: str, registry: Registry, options: dict[str, Any]) -> None:
    if options:
        await needs_user_namespaces(crid)
    layers = [[regular("data/one", b"1\n")], [regular("data/two", b"2\n")]]
    mounts = []
    for number in (1, 2):
        ref = push_image(registry, f"volume{number}:1", layers[:number], {}).ref
        await crid.cri.PullImage(image={"image": ref})
        mounts.append({"container_path": f"/v{number}", "image": {"image": ref}})
    mounts.append({**mounts[1], "container_path": "/v3", "image_sub_path": "data"})
    mounts.append({**mounts[1], "container_path": "/v4", "image_sub_path": "data/one"})
    script = "cat /v1/data/one /v2/data/one /v2/data/two /v3/two /v4"
    for _ in range(2):  # the pods differ in their categories
        linux = security(namespace_options=options)
        pod = await crid.run_pod(linux=linux)
        assert await output(crid, busybox, script, pod=pod, linux=linux, mounts=mounts) == ["1", "1", "2", "2", "1"]


async def test_containers_of_runc(with_runc: tuple[Crid, str]) -> None:
    crid, image = with_runc
    id = await container_of(crid, image, mounts=[{"container_path": "/image", "image": {"image": image}}])
    level = await level_of(crid, id)
    assert await label_of(crid, id) == f"{PROCESS}:{level}"
    assert (await crid.exec(id, "cat", CURRENT))[1].rstrip("\0") == f"{PROCESS}:{level}"
    script = "echo x > /new && cat /new && ls /dev/shm /dev/mqueue && cat /etc/hostname && /image/bin/true"
    assert (await crid.exec(id, "sh", "-c", script))[0] == 0
    assert file_label(f"/proc/{await crid.pid_of(id)}/root/new") == f"{FILE}:{level}"
