"""A pod with a user namespace (KEP-127), as the kernel tells it from inside and from outside."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Any

import pytest

from runtime.client import Pod
from tests.support.containers import CAPABILITIES, Node

BASE, LENGTH = 200_000, 65_536
IDS = {"uid": [[0, BASE, LENGTH]], "gid": [[0, BASE, LENGTH]]}
NS_GET_USERNS = 0xB701
OWNED = ("net", "ipc", "uts", "pid", "mnt", "cgroup")


async def userns_pod(node: Node, **fields: Any) -> Pod:
    return await node.pod(**{"hostname": "mapped", "userns": IDS, **fields})


def owner_of(pid: int, kind: str) -> int:
    """Inode of the user namespace that owns a process's namespace (ioctl_ns(2))."""
    fd = os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY)
    try:
        users = fcntl.ioctl(fd, NS_GET_USERNS)
        try:
            return os.fstat(users).st_ino
        finally:
            os.close(users)
    finally:
        os.close(fd)


async def pid_of(pod: Pod, id: str) -> int:
    return int((await pod.container_status(id))["pid"])


@pytest.mark.parametrize("pid", ["container", "pod"])
async def test_every_namespace_belongs_to_the_pods_user_namespace(node: Node, pid: str) -> None:
    pod = await userns_pod(node, pid=pid)
    first, second = [await pid_of(pod, (await node.idle(pod)).id) for _ in range(2)]
    users = os.stat(f"/proc/{first}/ns/user").st_ino
    assert users == os.stat(f"/proc/{second}/ns/user").st_ino != os.stat("/proc/self/ns/user").st_ino
    assert {kind: owner_of(first, kind) for kind in OWNED} == dict.fromkeys(OWNED, users)
    for kind in ("uid", "gid"):
        assert Path(f"/proc/{first}/{kind}_map").read_text().split() == ["0", str(BASE), str(LENGTH)]
    assert os.stat(f"/proc/{first}").st_uid == BASE


async def test_a_shim_keeps_no_file_of_a_cgroup(node: Node) -> None:
    pod = await userns_pod(node, pid="pod")
    await node.idle(pod)
    files = [os.readlink(entry) for entry in Path(f"/proc/{pod.shim.pid}/fd").iterdir()]
    assert [name for name in files if "cgroup" in name] == []


@pytest.mark.parametrize("pid", ["container", "pod"])
async def test_root_inside_finds_its_files_its_own(node: Node, pid: str) -> None:
    pod = await userns_pod(node, pid=pid)
    script = """
id -u; hostname; stat -c '%n %u:%g' / /bin/busybox /dev /dev/null /dev/shm /dev/pts /tmp-made
touch /new /dev/shm/x /dev/y; echo hello > /dev/null; stat -c '%n %u' /new /dev/shm/x; cat /proc/self/uid_map
mount -t tmpfs none /tmp-made && echo mounted
"""
    caps = [*CAPABILITIES, "CAP_SYS_ADMIN"]
    sets = dict.fromkeys(("bounding", "effective", "permitted"), caps)
    output = await node.sh(pod, "mkdir -p /tmp-made;" + script, process={"capabilities": sets})
    lines = output.splitlines()
    assert lines[:2] == ["0", "mapped"]
    assert all(line.endswith(" 0:0") for line in lines[2:9] if "/dev/pts" not in line), output
    assert lines[-1] == "mounted"
