"""Pods with a user namespace (KEP-127, KEP-5607), through the CRI socket and as the kernel sees them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from cri.client import CriError
from cri.proto import api_pb2 as api
from tests.support.crid import Crid, Sandbox

BASE, LENGTH = 1_000_000, 65_536
IDS: dict[str, Any] = {"host_id": BASE, "container_id": 0, "length": LENGTH}
USERNS = {"mode": api.POD, "uids": [IDS], "gids": [IDS]}
ALL = {"capabilities": {"add_capabilities": ["ALL"]}}


async def mapped_pod(crid: Crid, **options: Any) -> Sandbox:
    options = {"userns_options": USERNS, "pid": api.CONTAINER, **options}
    return await crid.run_pod(linux={"security_context": {"namespace_options": options}})


@pytest_asyncio.fixture(loop_scope="session")
async def pod(crid: Crid) -> AsyncIterator[Sandbox]:
    yield await mapped_pod(crid)


async def shell(crid: Crid, id: str, script: str) -> str:
    code, output, errors = await crid.exec(id, "sh", "-c", script)
    assert code == 0, output + errors
    return output


async def host_pid(crid: Crid, id: str) -> int:
    """The pid on the node, by the cgroup."""
    directories = [path for path in Path("/sys/fs/cgroup").rglob(id) if (path / "cgroup.procs").exists()]
    return int((directories[0] / "cgroup.procs").read_text().split()[0])


async def test_status_offers_what_works_here(crid: Crid) -> None:
    answer = await crid.cri.Status()
    default = next(handler for handler in answer.runtime_handlers if not handler.name)
    assert default.features.user_namespaces
    assert default.features.recursive_read_only_mounts
    assert answer.features.user_namespaces_host_network


async def test_containers_and_execs_share_the_mapping(crid: Crid, pod: Sandbox, busybox: str) -> None:
    ids = [await crid.run(pod, busybox, ["sleep", "1000"], name=name) for name in ("one", "two")]
    maps, users = set(), set()
    for id in ids:
        output = await shell(crid, id, "cat /proc/self/uid_map /proc/1/gid_map; readlink /proc/self/ns/user; id -u")
        *lines, namespace, uid = output.splitlines()
        maps |= {tuple(line.split()) for line in lines}
        users |= {namespace, os.readlink(f"/proc/{await host_pid(crid, id)}/ns/user")}
        assert uid == "0"
        assert os.stat(f"/proc/{await host_pid(crid, id)}").st_uid == BASE
    assert maps == {("0", str(BASE), str(LENGTH))}
    assert len(users) == 1 and os.readlink("/proc/self/ns/user") not in users


async def test_files_of_the_image_and_new_ones(crid: Crid, pod: Sandbox, busybox: str) -> None:
    id = await crid.run(pod, busybox, ["sleep", "1000"], working_dir="/made/here")
    script = (
        "touch file /etc/new && mkdir -p /x/y && stat -c %u:%g /bin/busybox / . file /x/y /etc/hosts; cat /etc/hosts"
    )
    lines = (await shell(crid, id, script)).splitlines()
    assert lines[:6] == ["0:0"] * 6
    upper = next((crid.root / "snapshots").rglob("etc/new"))
    assert os.stat(upper).st_uid == BASE  # on the disk it is nobody's who matters on the node
    assert "localhost" in "".join(lines[6:])


async def test_a_user_and_its_streams(crid: Crid, pod: Sandbox, busybox: str) -> None:
    user = {"security_context": {"run_as_user": {"value": 1000}, "run_as_group": {"value": 2000}}}
    script = "id -u; id -g; echo again > /dev/stdout; echo error > /dev/stderr; stat -L -c %u /dev/stdout"
    id = await crid.run(pod, busybox, ["sh", "-c", script], linux=user)
    status = await crid.ended(id)
    assert (status.exit_code, status.user.linux.uid) == (0, 1000), crid.log_of(pod[1])
    assert sorted(crid.log_of(pod[1]).split()) == sorted(["1000", "2000", "again", "error", "1000"])


async def test_a_terminal(crid: Crid, pod: Sandbox, busybox: str) -> None:
    script = "tty; stat -c %u:%g $(tty); ls -l /dev/console > /dev/null && echo console; echo done > /dev/tty"
    user = {"security_context": {"run_as_user": {"value": 7}}}
    id = await crid.run(pod, busybox, ["sh", "-c", script], tty=True, linux=user)
    assert (await crid.ended(id)).exit_code == 0
    assert crid.log_of(pod[1]).split() == ["/dev/pts/0", "7:5", "console", "done"]


async def test_capabilities_are_those_of_the_namespace(crid: Crid, pod: Sandbox, busybox: str) -> None:
    id = await crid.run(pod, busybox, ["sleep", "1000"], linux={"security_context": ALL})
    output = await shell(
        crid,
        id,
        "mkdir /m; mount -t tmpfs none /m && echo mounted; hostname other && hostname;"
        "echo 1 > /proc/sys/kernel/panic || echo refused; mknod /n b 7 0 || echo refused;"
        "umount /proc/kcore || echo locked; chmod 666 /dev/null && echo own;"
        "cat /proc/1/root/etc/hosts > /dev/null && echo ok",
    )
    assert output.split() == ["mounted", "other", "refused", "refused", "locked", "own", "ok"]
    default = await crid.run(pod, busybox, ["sleep", "1000"], name="default")
    caps = dict(line.split() for line in (await shell(crid, default, "grep Cap /proc/1/status")).splitlines())
    assert caps["CapBnd:"] == caps["CapEff:"] == "00000000a80425fb"
    assert caps["CapInh:"] == caps["CapAmb:"] == "0000000000000000"


async def test_sysctls_devices_and_kernel_filesystems(crid: Crid, busybox: str) -> None:
    linux = {
        "security_context": {"namespace_options": {"userns_options": USERNS, "pid": api.CONTAINER}},
        "sysctls": {
            "kernel.shm_rmid_forced": "1",
            "net.ipv4.ip_unprivileged_port_start": "80",
            "fs.mqueue.msg_max": "20",
        },
    }
    pod = await crid.run_pod(linux=linux)
    id = await crid.run(pod, busybox, ["sleep", "1000"])
    names = "/kernel/shm_rmid_forced /net/ipv4/ip_unprivileged_port_start /fs/mqueue/msg_max"
    values = await shell(crid, id, f"cd /proc/sys; for n in {names}; do cat .$n; done")
    assert values.split() == ["1", "80", "20"]
    script = (
        "touch /dev/mqueue/q /dev/shm/s; stat -c '%n %u:%g %a' /dev/null /dev/mqueue/q /dev/shm/s; ls /sys/class/net"
    )
    assert (await shell(crid, id, script)).splitlines() == [
        *("/dev/null 0:0 666", "/dev/mqueue/q 0:0 644", "/dev/shm/s 0:0 644", "eth0", "lo"),
    ]


async def test_volumes_are_id_mapped_when_asked(crid: Crid, pod: Sandbox, busybox: str, tmp_path: Path) -> None:
    (tmp_path / "roots").write_text("0")
    (tmp_path / "users").write_text("1000")
    os.chown(tmp_path / "users", 1000, 1000)
    tmp_path.chmod(0o755)
    mapped = {"uidMappings": [IDS], "gidMappings": [IDS], "host_path": str(tmp_path)}
    mounts = [{"container_path": "/mapped", **mapped}, {"container_path": "/plain", "host_path": str(tmp_path)}]
    id = await crid.run(pod, busybox, ["sleep", "1000"], mounts=mounts)
    script = "touch /mapped/new; touch /plain/new2 || echo refused; stat -c %u /mapped/* /plain/*"
    assert (await shell(crid, id, script)).split() == ["refused", "0", "0", "1000", *["65534"] * 3]
    assert os.stat(tmp_path / "new").st_uid == 0


async def test_image_volumes_are_id_mapped(crid: Crid, pod: Sandbox, busybox: str) -> None:
    mount = {"container_path": "/image", "image": {"image": busybox}}
    id = await crid.run(pod, busybox, ["stat", "-c", "%u:%g", "/image/bin/busybox"], mounts=[mount])
    await crid.ended(id)
    assert crid.log_of(pod[1]) == "0:0"


@pytest.fixture
def not_mappable(tmp_path: Path) -> Iterator[Path]:
    """A filesystem that no kernel can id-map."""
    place = tmp_path / "proc"
    place.mkdir()
    subprocess.run(["mount", "-t", "proc", "proc", str(place)], check=True, timeout=10)
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True, timeout=10)


async def test_a_filesystem_that_cannot_be_mapped_is_named(
    crid: Crid, pod: Sandbox, busybox: str, not_mappable: Path
) -> None:
    mount = {"container_path": "/v", "host_path": str(not_mappable), "uidMappings": [IDS], "gidMappings": [IDS]}
    with pytest.raises(CriError, match=rf"mount /v.*cannot id-map the filesystem of {not_mappable}.*ext4") as caught:
        await crid.create(pod, busybox, ["true"], mounts=[mount])
    assert caught.value.code == "FAILED_PRECONDITION"


async def test_privileged_inside_a_user_namespace_is_no_power_over_the_node(crid: Crid, busybox: str) -> None:
    context = {"privileged": True, "namespace_options": {"userns_options": USERNS, "pid": api.CONTAINER}}
    pod = await crid.run_pod(linux={"security_context": context})
    id = await crid.run(pod, busybox, ["sleep", "1000"], linux={"security_context": {"privileged": True}})
    disk = next((path for path in ("/dev/vda", "/dev/sda", "/dev/loop0") if os.path.exists(path)), "/dev/kmsg")
    script = f"head -c 1 {disk} > /dev/null 2>&1 || echo refused; stat -c %u {disk};"
    script += "echo 1 > /proc/sys/kernel/panic || echo refused"
    assert (await shell(crid, id, script)).split() == ["refused", "65534", "refused"]


@pytest.mark.parametrize("pid", [api.POD, api.CONTAINER])
async def test_the_hosts_network(crid: Crid, busybox: str, pid: int) -> None:
    pod = await mapped_pod(crid, network=api.NODE, pid=pid)
    id = await crid.run(pod, busybox, ["sleep", "1000"])
    output = await shell(
        crid, id, "readlink /proc/self/ns/net; id -u; touch /sys/kernel/x || echo ro; hostname x || echo refused"
    )
    assert output.split() == [os.readlink("/proc/self/ns/net"), "0", "ro", "refused"]


async def test_it_is_in_the_pods_cgroup_with_its_limits(crid: Crid, busybox: str) -> None:
    """CVE-2025-47291: containers of such pods were outside of it, and had no limits."""
    pod = await mapped_pod(crid)
    resources = {"memory_limit_in_bytes": 64 << 20}
    id = await crid.run(pod, busybox, ["sleep", "1000"], linux={"resources": resources})
    pid = await host_pid(crid, id)
    lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    assert all(line.endswith(f"/{id}") for line in lines if line.split(":")[1] in ("memory", "pids", "cpu,cpuacct", ""))


async def test_crid_finds_such_a_pod_again(crid: Crid, pod: Sandbox, busybox: str) -> None:
    id = await crid.run(pod, busybox, ["sleep", "1000"])
    crid.kill()
    await crid.start()
    assert (await shell(crid, id, "cat /proc/self/uid_map")).split() == ["0", str(BASE), str(LENGTH)]
    later = await crid.run(pod, busybox, ["cat", "/proc/self/uid_map"], name="later")
    await crid.ended(later)
    assert crid.log_of(pod[1], "later").split() == ["0", str(BASE), str(LENGTH)]
    state = crid.state / "sandboxes" / pod[0]
    assert str(state / "ns/user") in Path("/proc/self/mountinfo").read_text()
    await crid.cri.RemovePodSandbox(pod_sandbox_id=pod[0])
    assert str(state) not in Path("/proc/self/mountinfo").read_text()


TWO = [IDS, {**IDS, "host_id": 2_000_000}]
REFUSED = [
    ({"mode": api.POD, "uids": TWO, "gids": TWO}, "uids has 2 mappings"),
    ({"mode": api.POD}, "uids has 0 mappings"),
    ({"mode": api.POD, "uids": [{**IDS, "container_id": 1}], "gids": [IDS]}, "uids: container_id is 1"),
    ({"mode": api.POD, "uids": [IDS], "gids": [{**IDS, "host_id": 5}]}, "map differently"),
    ({"mode": api.POD, "uids": [{**IDS, "length": 0}], "gids": [IDS]}, "no range of ids"),
    ({"mode": api.POD, "uids": [{**IDS, "host_id": 2**32 - 2}], "gids": [IDS]}, "no range of ids"),
    ({"mode": api.NODE, "uids": [IDS]}, "mode NODE takes no uids"),
    ({"mode": api.CONTAINER}, "mode CONTAINER is neither"),
    ({"mode": api.TARGET}, "mode TARGET is neither"),
]


@pytest.mark.parametrize(("options", "words"), REFUSED)
async def test_what_cannot_be_asked_for(crid: Crid, options: dict[str, Any], words: str) -> None:
    with pytest.raises(CriError, match=words) as caught:
        await mapped_pod(crid, userns_options=options)
    assert caught.value.code == "INVALID_ARGUMENT"
    assert "userns_options" in caught.value.details


@pytest.mark.parametrize("kind", ["pid", "ipc"])
async def test_not_with_the_hosts_processes_or_memory(crid: Crid, kind: str) -> None:
    with pytest.raises(CriError, match=f"namespace_options.{kind} is NODE"):
        await mapped_pod(crid, **{kind: api.NODE})


async def test_what_a_container_of_it_cannot_ask_for(crid: Crid, pod: Sandbox, busybox: str) -> None:
    other = {**IDS, "host_id": 5_000_000}
    options = {"userns_options": {"mode": api.POD, "uids": [other], "gids": [other]}}
    cases: list[tuple[str, dict[str, Any]]] = [
        ("is not that of its pod", {"linux": {"security_context": {"namespace_options": options}}}),
        ("user 65536 is not mapped", {"linux": {"security_context": {"run_as_user": {"value": LENGTH}}}}),
        ("group 70000 is not mapped", {"linux": {"security_context": {"supplemental_groups": [70000]}}}),
        (
            "are not those of the pod",
            {"mounts": [{"container_path": "/v", "host_path": "/tmp", "uidMappings": [other], "gidMappings": [other]}]},
        ),
        (
            "BIDIRECTIONAL",
            {"mounts": [{"container_path": "/v", "host_path": "/tmp", "propagation": api.PROPAGATION_BIDIRECTIONAL}]},
        ),
    ]
    for words, fields in cases:
        with pytest.raises(CriError, match=words) as caught:
            await crid.create(pod, busybox, ["true"], **fields)
        assert caught.value.code == "INVALID_ARGUMENT"
