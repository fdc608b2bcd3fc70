"""What a status says is what the request said and what the kernel does, field by field."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from pathlib import Path

import pytest

from cri.client import CriError
from cri.proto import api_pb2 as api
from tests.support.crid import Crid
from tests.support.images import busybox_rootfs, push_image
from tests.support.registry import Registry

MIB = 1 << 20


async def pid_of(crid: Crid, id: str) -> int:
    answer = await crid.cri.ContainerStatus(container_id=id, verbose=True)
    return int(json.loads(answer.info["info"])["pid"])


def limits_of(pid: int) -> tuple[int, int]:
    """(memory limit in bytes, CPU quota in microseconds) of a process, as the kernel has them, v1 or v2."""
    own = dict(line.split(":", 2)[1:] for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines())
    if "memory" in own:
        memory = Path(f"/sys/fs/cgroup/memory{own['memory']}/memory.limit_in_bytes").read_text()
        cpu = next(path for kinds, path in own.items() if "cpu" in kinds.split(","))
        return int(memory), int(Path(f"/sys/fs/cgroup/cpu{cpu}/cpu.cfs_quota_us").read_text())
    folder = Path("/sys/fs/cgroup" + own[""])
    return int((folder / "memory.max").read_text()), int((folder / "cpu.max").read_text().split()[0])


async def test_the_request_comes_back_verbatim(crid: Crid, busybox: str, tmp_path: Path) -> None:
    fields = {
        "metadata": {"name": "main", "attempt": 7},
        "labels": {"io.kubernetes.container.name": "main", "": "empty key", "ключ": "значение"},
        "annotations": {"io.kubernetes.container.hash": "ff00", "lines": "one\ntwo\x00three"},
        "mounts": [{"container_path": "/given", "host_path": str(tmp_path), "readonly": True}],
        "log_path": "main/7.log",
        "stop_signal": api.SIGNAL_SIGRTMINPLUS3,
        "linux": {
            "resources": {"cpu_shares": 512, "memory_limit_in_bytes": 64 * MIB, "oom_score_adj": 900},
            "security_context": {"run_as_user": {"value": 1000}, "supplemental_groups": [5000]},
        },
    }
    pod = await crid.run_pod()
    status = await crid.status(await crid.run(pod, busybox, ["sleep", "1000"], **fields))
    wanted = api.ContainerConfig(**fields)  # type: ignore[arg-type]
    for field in ("metadata", "labels", "annotations", "mounts", "stop_signal"):
        assert getattr(status, field) == getattr(wanted, field), field
    assert status.resources.linux == wanted.linux.resources
    assert status.log_path == f"{pod[1].log_directory}/main/7.log"
    assert (status.user.linux.uid, 5000 in status.user.linux.supplemental_groups) == (1000, True)


async def test_the_stop_signal_is_the_images_where_the_request_has_none(crid: Crid, registry: Registry) -> None:
    pushed = push_image(registry, "quits:1", [busybox_rootfs()], {"Cmd": ["sleep", "9"], "StopSignal": "SIGQUIT"})
    await crid.cri.PullImage(image={"image": pushed.ref})
    pod = await crid.run_pod()
    assert (await crid.status(await crid.create(pod, pushed.ref, []))).stop_signal == api.SIGNAL_SIGQUIT
    other = await crid.create(pod, pushed.ref, [], name="other", stop_signal=api.SIGNAL_SIGUSR1)
    assert (await crid.status(other)).stop_signal == api.SIGNAL_SIGUSR1


@pytest.mark.parametrize(
    ("script", "code", "reason"),
    [("exit 0", 0, "Completed"), ("exit 9", 9, "Error"), ("kill -9 $$", 137, "Error"), ("kill -15 $$", 143, "Error")],
)
async def test_how_it_ended(crid: Crid, busybox: str, script: str, code: int, reason: str) -> None:
    """The first process of a PID namespace is safe from its own signals, so the pod's init stands before it."""
    pod = await crid.run_pod()
    status = await crid.ended(await crid.run(pod, busybox, ["sh", "-c", script]))
    assert (status.exit_code, status.reason) == (code, reason)
    assert 0 < status.created_at < status.started_at < status.finished_at


async def test_limits_go_up_and_down_in_the_kernel_and_in_the_status(crid: Crid, busybox: str) -> None:
    linux = {"resources": {"memory_limit_in_bytes": 64 * MIB, "cpu_quota": 20_000, "cpu_period": 100_000}}
    id = await crid.create(await crid.run_pod(), busybox, ["sleep", "1000"], linux=linux)
    await crid.cri.UpdateContainerResources(container_id=id, linux={"cpu_quota": 30_000})
    await crid.cri.StartContainer(container_id=id)
    pid = await pid_of(crid, id)
    assert limits_of(pid) == (64 * MIB, 30_000), "an update before the start is in force from the start"
    for memory, quota in ((256 * MIB, 50_000), (32 * MIB, 10_000)):
        change = {"memory_limit_in_bytes": memory, "memory_swap_limit_in_bytes": memory, "cpu_quota": quota}
        await crid.cri.UpdateContainerResources(container_id=id, linux=change)
        assert limits_of(pid) == (memory, quota)
        told = (await crid.status(id)).resources.linux
        assert (told.memory_limit_in_bytes, told.cpu_quota, told.cpu_period) == (memory, quota, 100_000)


async def test_an_update_that_the_kernel_refuses_changes_nothing(crid: Crid, busybox: str) -> None:
    linux = {"resources": {"memory_limit_in_bytes": 64 * MIB, "cpu_quota": 20_000, "cpu_period": 100_000}}
    id = await crid.run(await crid.run_pod(), busybox, ["sleep", "1000"], linux=linux)
    pid = await pid_of(crid, id)
    for change in (
        {"cpu_quota": 30_000, "cpuset_cpus": "4000"},
        {"memory_limit_in_bytes": 128 * MIB, "cpuset_mems": "4000"},
    ):
        with pytest.raises(CriError):
            await crid.cri.UpdateContainerResources(container_id=id, linux=change)
        assert limits_of(pid) == (64 * MIB, 20_000)
        assert (await crid.status(id)).resources.linux == api.LinuxContainerResources(**linux["resources"])  # type: ignore[arg-type]


async def test_a_container_that_has_ended_takes_no_limits(crid: Crid, busybox: str) -> None:
    id = await crid.run(await crid.run_pod(), busybox, ["true"])
    await crid.ended(id)
    with pytest.raises(CriError, match="has exited") as caught:
        await crid.cri.UpdateContainerResources(container_id=id, linux={"cpu_quota": 30_000})
    assert caught.value.code == "FAILED_PRECONDITION"


async def test_a_host_port_of_one_address(crid: Crid, busybox: str) -> None:
    """Protocols other than TCP are in tests/kernel/cni; here all three are asked for at once."""
    port = free_port()
    protocols = (api.TCP, api.UDP, api.SCTP)
    mappings = [
        {"host_port": port, "container_port": 80, "host_ip": "127.0.0.1", "protocol": protocol}
        for protocol in protocols
    ]
    pod = await crid.run_pod(crid.pod_config(port_mappings=mappings))
    await crid.run(pod, busybox, ["httpd", "-f", "-h", "/etc"])
    async with asyncio.timeout(20):
        assert (await heard_over_tcp(port)).startswith(b"HTTP/1.")
    for address in own_addresses():
        with pytest.raises(OSError):
            await asyncio.wait_for(asyncio.open_connection(address, port), 2)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def own_addresses() -> list[str]:
    found = os.popen("ip -4 -o address show scope global").read()
    return [line.split()[3].partition("/")[0] for line in found.splitlines()]


async def heard_over_tcp(port: int) -> bytes:
    while True:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.05)
            continue
        try:
            writer.write(b"GET /passwd HTTP/1.0\r\n\r\n")
            if said := await reader.read(100):
                return said
        finally:
            writer.close()
