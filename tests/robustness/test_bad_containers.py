"""Containers that behave as badly as they can, and pods beside them that must not notice."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from cri.proto import api_pb2 as api
from runtime.linux.cgroups import Cgroup
from tests.support.attacker import namespaces, said
from tests.support.canary import leftovers
from tests.support.crid import Sandbox
from tests.support.neighbourhood import Neighbourhood
from tests.support.processes import commanded

MIB = 1 << 20
MANY = 100
FLOOD_SECONDS = 1.5
STORM_SECONDS = 1.5


async def limited(street: Neighbourhood, **resources: object) -> Sandbox:
    """A pod whose cgroup has limits, as a kubelet sets them."""
    pod = await street.crid.run_pod()
    Cgroup(f"/{street.crid.bridge}/pod{pod[1].metadata.uid}").apply(resources)
    return pod


async def test_a_container_that_closes_its_output(street: Neighbourhood) -> None:
    crid = street.crid
    pod = await crid.run_pod()
    script = "echo last; exec <&- >&- 2>&-; sleep 0.3; exit 9"
    id = await crid.run(pod, street.image, ["sh", "-c", script])
    assert (await crid.ended(id)).exit_code == 9
    silent = await crid.run(pod, street.image, ["sh", "-c", "exec >&- 2>&-; sleep 100"], name="silent")
    assert (await crid.exec(silent, "echo", "still"))[1] == "still\n"
    await crid.cri.StopContainer(api.StopContainerRequest(container_id=silent, timeout=0))
    assert (await crid.status(silent)).exit_code == 137
    assert crid.log_of(pod[1]) == "last"


@pytest.mark.parametrize("pid", [api.CONTAINER, api.POD, api.NODE])
async def test_a_container_that_goes_into_the_background(street: Neighbourhood, pid: api.NamespaceMode) -> None:
    """Twice forked, in a session of its own, without its streams: killed with its container, and waited for."""
    crid = street.crid
    pod = await crid.run_pod(linux=namespaces(pid=pid))
    daemon = "setsid sh -c '(setsid sleep 7654321 &) ; exec sleep 7654321' </dev/null >/dev/null 2>&1 &"
    id = await crid.run(pod, street.image, ["sh", "-c", f"{daemon} sleep 0.2; exit 4"])
    shim = await street.shim_of(id)
    assert (await crid.ended(id)).exit_code == 4
    async with asyncio.timeout(10):
        while commanded("sleep", "7654321") or zombies(shim):  # noqa: ASYNC110 - the kernel is asked
            await asyncio.sleep(0.02)


def zombies(parent: int) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, ppid = path.read_text().rpartition(")")[2].split()[:2]
        except OSError:  # it has ended
            continue
        if state == "Z" and int(ppid) == parent:
            found.append(path.parent.name)
    return found


async def test_a_fork_bomb(street: Neighbourhood) -> None:
    crid = street.crid
    pod = await limited(street, pids={"limit": 60})
    bomb = "echo ready; b() { b | b & }; while true; do b; done"
    id = await crid.run(pod, street.image, ["sh", "-c", bomb])
    await said(crid, pod, "ready")
    for _ in range(3):
        await street.serves()
    request = api.StopContainerRequest(container_id=id, timeout=0)
    await crid.cri.StopContainer(request, timeout=30)
    assert (await crid.status(id)).state == api.CONTAINER_EXITED


async def test_a_container_that_floods_its_log(street: Neighbourhood) -> None:
    crid = street.crid
    pod = await crid.run_pod()
    log = Path(pod[1].log_directory, "main.log")
    script = "l=$(head -c 3000 /dev/zero | tr '\\0' x); exec yes $l"
    id = await crid.run(pod, street.image, ["sh", "-c", script])
    shim = await street.shim_of(id)
    await asyncio.sleep(0.2)
    before, started = street.memory(shim), time.monotonic()
    while time.monotonic() - started < FLOOD_SECONDS:
        await street.serves()
    assert log.stat().st_size > 20 * MIB
    assert street.memory(shim) - before < 8 * MIB
    await crid.cri.StopContainer(api.StopContainerRequest(container_id=id, timeout=0), timeout=15)
    log.unlink()


async def test_a_storm_of_deaths_by_memory(street: Neighbourhood) -> None:
    """O8, CVE-2019-14891: the shim is in none of its containers' cgroups, so the storm passes it by."""
    crid = street.crid
    pod = await limited(street, memory={"limit": 32 * MIB})
    script = "echo ready; while true; do attacker eat 100 & attacker eat 100; wait; done"
    id = await crid.run(pod, street.image, ["sh", "-c", script])
    shim = await street.shim_of(id)
    await said(crid, pod, "ready")
    started = time.monotonic()
    while time.monotonic() - started < STORM_SECONDS:
        await street.serves()
    assert Path(f"/proc/{shim}/comm").read_text().startswith("shim")
    await crid.cri.StopContainer(api.StopContainerRequest(container_id=id, timeout=0), timeout=15)
    assert (await crid.status(id)).state == api.CONTAINER_EXITED
    assert not commanded("attacker", "eat")


async def test_a_hundred_pods_at_once(street: Neighbourhood) -> None:
    """RunPodSandbox, CreateContainer and StartContainer of all of them together; then nothing is left of any."""
    crid = street.crid
    assert crid.process is not None
    descriptors = Path(f"/proc/{crid.process.pid}/fd")
    before = len(list(descriptors.iterdir()))

    async def one(number: int) -> str:
        config = crid.pod_config(f"many{number}")
        request = api.RunPodSandboxRequest(config=config)
        pod = (await crid.cri.RunPodSandbox(request, timeout=120)).pod_sandbox_id, config
        answer = await crid.cri.CreateContainer(
            api.CreateContainerRequest(
                pod_sandbox_id=pod[0],
                config=api.ContainerConfig(
                    metadata={"name": "main"}, image={"image": street.image}, command=["sleep", "1000"]
                ),
                sandbox_config=pod[1],
            ),
            timeout=120,
        )
        await crid.cri.StartContainer(api.StartContainerRequest(container_id=answer.container_id), timeout=120)
        return pod[0]

    pods = await asyncio.gather(*(one(number) for number in range(MANY)))
    running_ones = await crid.cri.ListContainers(filter={"state": {"state": api.CONTAINER_RUNNING}})
    assert len(running_ones.containers) >= MANY
    addresses = [(await crid.cri.PodSandboxStatus(pod_sandbox_id=id)).status.network.ip for id in pods]
    assert len(set(addresses)) == MANY
    removals = (crid.cri.RemovePodSandbox(api.RemovePodSandboxRequest(pod_sandbox_id=id), timeout=120) for id in pods)
    await asyncio.gather(*removals)
    async with asyncio.timeout(10):
        while [line for line in leftovers(crid) if any(id in line for id in pods)]:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.05)
    assert len(list(descriptors.iterdir())) <= before + 8
