"""kill -9 of crid at every step of a pod's life: what ran goes on, what was half-made is gone, nothing leaks."""

from __future__ import annotations

import asyncio
import os

import pytest

from cni.worker import FAILPOINTS as NETWORK_STEPS
from cri.client import CriError
from cri.proto import api_pb2 as api
from cri.server import sandbox_end
from cri.server.calls import create_container, remove_container, run_pod_sandbox, start_container
from tests.support.crid import Crid
from tests.support.nothing_left import fsck_is_silent, nothing_is_left


async def restarted(crid: Crid, failpoints: str) -> None:
    crid.kill()
    await crid.start(failpoints)


PORTS = [{"container_port": 80, "host_port": 18081}]  # so that the steps of portmap are reached
NETWORK_UP = [
    name for name in NETWORK_STEPS if ".delete." not in name and not name.endswith(("unmap", "cut", "release"))
]
NETWORK_DOWN = [name for name in NETWORK_STEPS if name not in NETWORK_UP]


@pytest.mark.parametrize("step", [*run_pod_sandbox.FAILPOINTS, *NETWORK_UP])
async def test_run_pod_sandbox(crid: Crid, step: str) -> None:
    await restarted(crid, f"{step}=kill")
    with pytest.raises(CriError):
        await crid.cri.RunPodSandbox(config=crid.pod_config(port_mappings=PORTS))
    await crid.died()
    await crid.start()
    await nothing_is_left(crid)
    await crid.run_pod(crid.pod_config(port_mappings=PORTS))


@pytest.mark.parametrize("step", run_pod_sandbox.FAILPOINTS)
async def test_a_failure_takes_the_sandbox_back(crid: Crid, step: str) -> None:
    await restarted(crid, f"{step}=error@1")
    with pytest.raises(CriError, match="failpoint"):
        await crid.cri.RunPodSandbox(config=crid.pod_config())
    await nothing_is_left(crid)
    await crid.run_pod()


@pytest.mark.parametrize("step", [*sandbox_end.FAILPOINTS, *NETWORK_DOWN])
async def test_stop_pod_sandbox(crid: Crid, busybox: str, step: str) -> None:
    await restarted(crid, f"{step}=kill")
    pod = await crid.run_pod(crid.pod_config(port_mappings=PORTS))
    id = await crid.run(pod, busybox, ["sleep", "1000"])
    with pytest.raises(CriError):
        await crid.cri.StopPodSandbox(pod_sandbox_id=pod[0])
    await crid.died()
    await crid.start()
    assert (await crid.cri.PodSandboxStatus(pod_sandbox_id=pod[0])).status.state == api.SANDBOX_NOTREADY
    await crid.ended(id)  # the stop goes on beside crid's answers
    await crid.cri.RemovePodSandbox(pod_sandbox_id=pod[0])
    await nothing_is_left(crid)


async def test_create_container(crid: Crid, busybox: str) -> None:
    [step] = create_container.FAILPOINTS
    await restarted(crid, f"{step}=kill")
    pod = await crid.run_pod()
    with pytest.raises(CriError):
        await crid.create(pod, busybox, ["sleep", "1000"])
    await crid.died()
    await crid.start()
    assert (await crid.cri.ListContainers()).containers == []
    await fsck_is_silent(crid)
    id = await crid.run(pod, busybox, ["sleep", "1000"])
    assert (await crid.status(id)).state == api.CONTAINER_RUNNING


@pytest.mark.parametrize(
    ("step", "state"),
    list(zip(start_container.FAILPOINTS, [api.CONTAINER_CREATED, api.CONTAINER_RUNNING], strict=True)),
)
async def test_start_container(crid: Crid, busybox: str, step: str, state: api.ContainerState) -> None:
    await restarted(crid, f"{step}=kill")
    pod = await crid.run_pod()
    id = await crid.create(pod, busybox, ["sleep", "1000"])
    with pytest.raises(CriError):
        await crid.cri.StartContainer(container_id=id)
    await crid.died()
    await crid.start()
    assert (await crid.status(id)).state == state
    if state == api.CONTAINER_CREATED:
        await crid.cri.StartContainer(container_id=id)
    assert (await crid.exec(id, "true"))[0] == 0
    await fsck_is_silent(crid)


async def test_remove_container(crid: Crid, busybox: str) -> None:
    [step] = remove_container.FAILPOINTS
    await restarted(crid, f"{step}=kill")
    pod = await crid.run_pod()
    id = await crid.run(pod, busybox, ["sleep", "1000"])
    with pytest.raises(CriError):
        await crid.cri.RemoveContainer(container_id=id)
    await crid.died()
    await crid.start()
    assert (await crid.status(id)).state == api.CONTAINER_EXITED
    await crid.cri.RemoveContainer(container_id=id)
    await crid.cri.RemovePodSandbox(pod_sandbox_id=pod[0])
    await nothing_is_left(crid)


async def test_what_runs_goes_on_and_exits_are_told(crid: Crid, busybox: str) -> None:
    pod = await crid.run_pod()
    forever = await crid.run(pod, busybox, ["sleep", "1000"], name="forever")
    ends = await crid.run(pod, busybox, ["sh", "-c", "sleep 0.5; exit 9"], name="ends")
    created = await crid.create(pod, busybox, ["true"], name="created")
    before = await crid.status(forever)
    address = (await crid.cri.PodSandboxStatus(pod_sandbox_id=pod[0])).status.network.ip
    crid.kill()
    await asyncio.sleep(1)
    await crid.start()
    assert await crid.status(forever) == before
    assert (await crid.status(ends)).exit_code == 9
    assert (await crid.status(created)).state == api.CONTAINER_CREATED
    assert (await crid.cri.PodSandboxStatus(pod_sandbox_id=pod[0])).status.network.ip == address
    assert (await crid.exec(forever, "echo", "hello"))[1] == "hello\n"
    await crid.cri.StartContainer(container_id=created)
    assert (await crid.ended(created)).exit_code == 0


async def test_a_graceful_stop_leaves_pods_running(crid: Crid, busybox: str) -> None:
    pod = await crid.run_pod()
    id = await crid.run(pod, busybox, ["sleep", "1000"])
    events = asyncio.create_task(anext(aiter(crid.cri.GetContainerEvents(timeout=30)), None))
    await asyncio.sleep(0.1)
    assert await crid.terminate() == 0
    assert await events is None
    assert not crid.socket.exists()
    await crid.start()
    assert (await crid.status(id)).state == api.CONTAINER_RUNNING


async def test_a_lost_shim_costs_one_pod(crid: Crid, busybox: str) -> None:
    import json

    pod, other = await crid.run_pod(), await crid.run_pod()
    id = await crid.run(pod, busybox, ["sleep", "1000"])
    untouched = await crid.run(other, busybox, ["sleep", "1000"])
    info = (await crid.cri.PodSandboxStatus(pod_sandbox_id=pod[0], verbose=True)).info["info"]
    os.kill(json.loads(info)["pid"], 9)
    status = await crid.ended(id)
    assert (status.exit_code, status.reason) == (255, "Unknown")
    assert (await crid.cri.PodSandboxStatus(pod_sandbox_id=pod[0])).status.state == api.SANDBOX_NOTREADY
    assert (await crid.status(untouched)).state == api.CONTAINER_RUNNING
    await crid.cri.StopPodSandbox(pod_sandbox_id=pod[0])
    for sandbox, _ in (pod, other):
        await crid.cri.RemovePodSandbox(pod_sandbox_id=sandbox)
    await nothing_is_left(crid)


async def test_a_shim_lost_while_crid_was_away(crid: Crid, busybox: str) -> None:
    import json

    pod = await crid.run_pod()
    id = await crid.run(pod, busybox, ["sleep", "1000"])
    info = (await crid.cri.PodSandboxStatus(pod_sandbox_id=pod[0], verbose=True)).info["info"]
    crid.kill()
    os.kill(json.loads(info)["pid"], 9)
    await crid.start()
    assert (await crid.status(id)).exit_code == 255
    await crid.cri.RemovePodSandbox(pod_sandbox_id=pod[0])
    await nothing_is_left(crid)
