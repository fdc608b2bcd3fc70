"""Every call of the interface is made here once, by its name in the descriptors, and keeps its first promise.

The other tests look closer. This one proves that none is forgotten: a call that the descriptors gain fails until it has
an entry in CALLS, and an entry that they do not have fails too.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from cri.client import CriClient, CriError
from cri.proto import api_pb2 as api
from cri.proto.services import methods
from tests.support.crid import Crid, Sandbox

#: cri-api v0.37: 37 calls of the RuntimeService, 6 of the ImageService.
COUNT = 43


@dataclass
class World:
    """A pod with one running container, `main`, that waits on its stdin."""

    crid: Crid
    cri: CriClient
    image: str
    pod: Sandbox
    main: str

    @property
    def pod_id(self) -> str:
        return self.pod[0]


Call = Callable[[World], Awaitable[None]]
CALLS: dict[str, Call] = {}


def call(test: Call) -> Call:
    """Enter a coroutine as the one that makes the call of its name."""
    CALLS[test.__name__] = test
    return test


@pytest_asyncio.fixture(loop_scope="session")
async def world(crid: Crid, busybox: str) -> World:
    pod = await crid.run_pod(labels={"call": "each"})
    return World(crid, crid.cri, busybox, pod, await crid.run(pod, busybox, ["cat"], stdin=True))


async def test_each_call_of_the_descriptors_has_its_entry() -> None:
    assert CALLS.keys() == methods().keys()
    assert len(CALLS) == COUNT


@pytest.mark.parametrize("name", sorted(methods()))
async def test_a_call_does_what_it_promises(world: World, name: str) -> None:
    await CALLS[name](world)


@call
async def Version(world: World) -> None:
    assert (await world.cri.Version()).runtime_api_version == "v1"


@call
async def Status(world: World) -> None:
    answer = await world.cri.Status(verbose=True)
    assert {each.type for each in answer.status.conditions} >= {"RuntimeReady", "NetworkReady"}
    assert "" in {handler.name for handler in answer.runtime_handlers}
    assert all(json.loads(value) is not None for value in answer.info.values())


@call
async def RuntimeConfig(world: World) -> None:
    assert (await world.cri.RuntimeConfig()).linux.cgroup_driver == api.CGROUPFS


@call
async def UpdateRuntimeConfig(world: World) -> None:
    """An empty CIDR changes nothing (api.proto, NetworkConfig)."""
    await world.cri.UpdateRuntimeConfig(runtime_config={"network_config": {"pod_cidr": ""}})
    for cidr, words in (("x", "pod_cidr 'x'"), ("10.1.0.0/31", "no address for a pod")):
        with pytest.raises(CriError, match=words) as caught:
            await world.cri.UpdateRuntimeConfig(runtime_config={"network_config": {"pod_cidr": cidr}})
        assert caught.value.code == "INVALID_ARGUMENT"


@call
async def RunPodSandbox(world: World) -> None:
    made = (await world.cri.RunPodSandbox(config=world.crid.pod_config())).pod_sandbox_id
    assert (await world.cri.PodSandboxStatus(pod_sandbox_id=made)).status.state == api.SANDBOX_READY


@call
async def StopPodSandbox(world: World) -> None:
    await world.cri.StopPodSandbox(pod_sandbox_id=world.pod_id)
    assert (await world.crid.status(world.main)).state == api.CONTAINER_EXITED


@call
async def RemovePodSandbox(world: World) -> None:
    await world.cri.RemovePodSandbox(pod_sandbox_id=world.pod_id)
    assert not (await world.cri.ListContainers()).containers


@call
async def PodSandboxStatus(world: World) -> None:
    before = (await world.cri.PodSandboxStatus(pod_sandbox_id=world.pod_id)).timestamp
    answer = await world.cri.PodSandboxStatus(pod_sandbox_id=world.pod_id, verbose=True)
    assert [each.id for each in answer.containers_statuses] == [world.main]
    assert answer.timestamp > before
    assert json.loads(answer.info["info"])["networkNamespace"]


@call
async def ListPodSandbox(world: World) -> None:
    [listed] = (await world.cri.ListPodSandbox(filter={"label_selector": {"call": "each"}})).items
    assert listed.id == world.pod_id


@call
async def StreamPodSandboxes(world: World) -> None:
    [message] = [each async for each in world.cri.StreamPodSandboxes(filter={"id": world.pod_id})]
    assert [each.id for each in message.pod_sandboxes] == [world.pod_id]


@call
async def UpdatePodSandboxResources(world: World) -> None:
    overhead, resources = {"cpu_shares": 10}, {"memory_limit_in_bytes": 1 << 28}
    request = api.UpdatePodSandboxResourcesRequest(pod_sandbox_id=world.pod_id, overhead=overhead, resources=resources)
    await world.cri.UpdatePodSandboxResources(request)
    answer = await world.cri.PodSandboxStatus(pod_sandbox_id=world.pod_id, verbose=True)
    linux = json.loads(answer.info["info"])["config"]["linux"]
    assert linux["overhead"] == {"cpu_shares": "10"}
    assert linux["resources"] == {"memory_limit_in_bytes": str(1 << 28)}
    with pytest.raises(CriError, match="no-such") as caught:
        await world.cri.UpdatePodSandboxResources(pod_sandbox_id="no-such")
    assert caught.value.code == "NOT_FOUND"


@call
async def CreateContainer(world: World) -> None:
    made = await world.crid.create(world.pod, world.image, ["true"], name="other")
    assert (await world.crid.status(made)).state == api.CONTAINER_CREATED


@call
async def StartContainer(world: World) -> None:
    made = await world.crid.create(world.pod, world.image, ["sleep", "9"], name="other")
    await world.cri.StartContainer(container_id=made)
    assert (await world.crid.status(made)).state == api.CONTAINER_RUNNING


@call
async def StopContainer(world: World) -> None:
    await world.cri.StopContainer(container_id=world.main)
    status = await world.crid.status(world.main)
    assert (status.state, status.exit_code) == (api.CONTAINER_EXITED, 137)


@call
async def RemoveContainer(world: World) -> None:
    await world.cri.RemoveContainer(container_id=world.main)
    with pytest.raises(CriError, match="no container") as caught:
        await world.crid.status(world.main)
    assert caught.value.code == "NOT_FOUND"


@call
async def ListContainers(world: World) -> None:
    [listed] = (await world.cri.ListContainers(filter={"pod_sandbox_id": world.pod_id})).containers
    assert (listed.id, listed.state) == (world.main, api.CONTAINER_RUNNING)


@call
async def StreamContainers(world: World) -> None:
    [message] = [each async for each in world.cri.StreamContainers()]
    assert [each.id for each in message.containers] == [world.main]


@call
async def ContainerStatus(world: World) -> None:
    answer = await world.cri.ContainerStatus(container_id=world.main, verbose=True)
    assert answer.status.started_at > answer.status.created_at
    info = json.loads(answer.info["info"])
    assert Path(f"/proc/{info['pid']}").is_dir()
    assert (info["sandboxID"], info["config"]["command"]) == (world.pod_id, ["cat"])


@call
async def UpdateContainerResources(world: World) -> None:
    await world.cri.UpdateContainerResources(container_id=world.main, linux={"memory_limit_in_bytes": 1 << 26})
    assert (await world.crid.status(world.main)).resources.linux.memory_limit_in_bytes == 1 << 26


@call
async def ReopenContainerLog(world: World) -> None:
    log = Path(world.pod[1].log_directory, "main.log")
    log.unlink()
    await world.cri.ReopenContainerLog(container_id=world.main)
    assert log.exists()
    await world.cri.StopContainer(container_id=world.main)
    log.unlink()
    with pytest.raises(CriError, match="does not run"):
        await world.cri.ReopenContainerLog(container_id=world.main)
    assert not log.exists()


@call
async def ExecSync(world: World) -> None:
    answer = await world.cri.ExecSync(container_id=world.main, cmd=["sh", "-c", "echo out; echo err >&2; exit 3"])
    assert (answer.stdout, answer.stderr, answer.exit_code) == (b"out\n", b"err\n", 3)


@call
async def Exec(world: World) -> None:
    assert (await world.cri.Exec(container_id=world.main, cmd=["true"], stdout=True)).url.startswith("http://127.")


@call
async def Attach(world: World) -> None:
    assert (await world.cri.Attach(container_id=world.main, stdin=True)).url.startswith("http://127.")


@call
async def PortForward(world: World) -> None:
    assert (await world.cri.PortForward(pod_sandbox_id=world.pod_id, port=[80])).url.startswith("http://127.")


@call
async def ContainerStats(world: World) -> None:
    stats = (await world.cri.ContainerStats(container_id=world.main)).stats
    assert stats.memory.usage_bytes.value > 0


@call
async def ListContainerStats(world: World) -> None:
    [stats] = (await world.cri.ListContainerStats()).stats
    assert stats.attributes.id == world.main


@call
async def StreamContainerStats(world: World) -> None:
    [message] = [each async for each in world.cri.StreamContainerStats(filter={"id": world.main})]
    assert [each.attributes.id for each in message.container_stats] == [world.main]


@call
async def PodSandboxStats(world: World) -> None:
    stats = (await world.cri.PodSandboxStats(pod_sandbox_id=world.pod_id)).stats
    assert stats.attributes.id == world.pod_id
    assert stats.linux.memory.usage_bytes.value > 0


@call
async def ListPodSandboxStats(world: World) -> None:
    [stats] = (await world.cri.ListPodSandboxStats(filter={"label_selector": {"call": "each"}})).stats
    assert [each.attributes.id for each in stats.linux.containers] == [world.main]


@call
async def StreamPodSandboxStats(world: World) -> None:
    [message] = [each async for each in world.cri.StreamPodSandboxStats()]
    assert [each.attributes.id for each in message.pod_sandbox_stats] == [world.pod_id]


@call
async def ListMetricDescriptors(world: World) -> None:
    assert len({each.name for each in (await world.cri.ListMetricDescriptors()).descriptors}) == 56


@call
async def ListPodSandboxMetrics(world: World) -> None:
    [pod] = (await world.cri.ListPodSandboxMetrics()).pod_metrics
    assert [each.container_id for each in pod.container_metrics] == [world.main]


@call
async def StreamPodSandboxMetrics(world: World) -> None:
    [message] = [each async for each in world.cri.StreamPodSandboxMetrics()]
    assert [each.pod_sandbox_id for each in message.pod_sandbox_metrics] == [world.pod_id]


@call
async def GetContainerEvents(world: World) -> None:
    events = world.cri.GetContainerEvents(timeout=30)
    first = asyncio.ensure_future(anext(events))
    while not first.done():  # it does not say when it listens: something happens until it has heard of it
        await world.crid.create(world.pod, world.image, ["true"], name=f"event-{secrets.token_hex(4)}")
        await asyncio.wait([first], timeout=0.2)
    event = await first
    assert event.container_event_type == api.CONTAINER_CREATED_EVENT
    assert event.pod_sandbox_status.id == world.pod_id
    assert world.main in {each.id for each in event.containers_statuses}
    await events.aclose()


@call
async def CheckpointContainer(world: World) -> None:
    with pytest.raises(CriError, match="no-such") as caught:
        await world.cri.CheckpointContainer(container_id="no-such", location="/tmp/never.tar")
    assert caught.value.code == "NOT_FOUND"


@call
async def CheckpointPod(world: World) -> None:
    with pytest.raises(CriError, match="no-such") as caught:
        await world.cri.CheckpointPod(pod_sandbox_id="no-such", output_path="/tmp/never")
    assert caught.value.code == "NOT_FOUND"


@call
async def RestorePod(world: World) -> None:
    with pytest.raises(CriError, match="relative") as caught:
        await world.cri.RestorePod(checkpoint_path="relative")
    assert caught.value.code == "INVALID_ARGUMENT"


@call
async def ListImages(world: World) -> None:
    [image] = (await world.cri.ListImages(filter={"image": {"image": world.image}})).images
    assert world.image in image.repo_tags


@call
async def StreamImages(world: World) -> None:
    found = [image async for message in world.cri.StreamImages() for image in message.images]
    assert len({image.id for image in found}) == len(found)
    assert any(world.image in image.repo_tags for image in found)


@call
async def ImageStatus(world: World) -> None:
    assert world.image in (await world.cri.ImageStatus(image={"image": world.image})).image.repo_tags
    assert not (await world.cri.ImageStatus(image={"image": "no/such"})).HasField("image")


@call
async def PullImage(world: World) -> None:
    id = (await world.cri.ImageStatus(image={"image": world.image})).image.id
    assert (await world.cri.PullImage(image={"image": world.image})).image_ref == id


@call
async def RemoveImage(world: World) -> None:
    await world.cri.RemoveImage(image={"image": "no/such"})
    await world.cri.RemoveImage(image={"image": world.image})
    assert not (await world.cri.ImageStatus(image={"image": world.image})).HasField("image")
    await world.cri.PullImage(image={"image": world.image})


@call
async def ImageFsInfo(world: World) -> None:
    answer = await world.cri.ImageFsInfo()
    assert answer.image_filesystems[0].fs_id.mountpoint == str(world.crid.root)
    assert answer.container_filesystems
