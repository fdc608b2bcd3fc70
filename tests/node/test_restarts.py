"""kill -9 of the agent and of crid at every step: what runs goes on, what was wanted comes about, nothing leaks."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from nodeagent.fsck import fsck
from nodeagent.sync.failpoints import ENDING, STARTING
from tests.support.agent import status_of
from tests.support.node import Node
from tests.support.pods import container, manifest

SLEEP = ["sleep", "600"]


def plain(name: str = "web", **fields: Any) -> dict[str, Any]:
    return manifest(name, container(command=SLEEP, **fields), terminationGracePeriodSeconds=0)


async def clean(node: Node) -> None:
    found = await asyncio.to_thread(fsck, node.crid.root, node.crid.state, node.kubelet_root)
    assert [str(finding) for finding in found] == []


async def test_an_agent_that_was_killed_takes_over_what_runs(node: Node) -> None:
    node.put(plain())
    before = await node.until_running("web")
    node.kill_agent()
    await node.start_agent()
    after = await node.until_running("web")
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert after["status"]["containerStatuses"] == before["status"]["containerStatuses"]
    assert after["status"]["podIP"] == before["status"]["podIP"]
    await clean(node)


@pytest.mark.parametrize("name", STARTING)
async def test_an_agent_killed_on_the_way_to_a_pod_finishes_it(node: Node, name: str) -> None:
    await node.stop_agent()
    node.put(plain())
    node.spawn_agent(f"{name}=kill")
    await node.agent_died()
    await node.start_agent()
    pod = await node.until_running("web")
    assert len((await node.crid.cri.ListPodSandbox()).items) == 1
    assert len((await node.crid.cri.ListContainers()).containers) == 1
    assert pod["status"]["containerStatuses"][0]["restartCount"] == 0
    await clean(node)
    node.remove()
    await node.until_gone()
    await clean(node)


@pytest.mark.parametrize("name", ENDING)
async def test_an_agent_killed_on_the_way_to_a_pods_end_finishes_it(node: Node, name: str) -> None:
    volume = {"name": "data", "emptyDir": {}}
    document = plain(volumeMounts=[{"name": "data", "mountPath": "/data"}])
    document["spec"]["volumes"] = [volume]
    node.put(document)
    await node.until_running("web")
    await node.stop_agent()
    node.spawn_agent(f"{name}=kill")
    node.remove()
    await node.agent_died()
    await node.start_agent()
    await node.until_gone()
    assert list((node.kubelet_root / "pods").iterdir()) == []
    assert list(node.log_root.iterdir()) == []
    await clean(node)


async def test_a_pod_whose_manifest_went_while_the_agent_was_down_is_ended(node: Node) -> None:
    node.put(plain())
    pod = await node.until_running("web")
    node.kill_agent()
    node.remove()
    await node.start_agent()
    await node.until_gone()
    assert not (node.kubelet_root / "pods" / pod["metadata"]["uid"]).exists()
    assert (await node.crid.cri.ListPodSandbox()).items == []
    await clean(node)


async def test_a_file_that_broke_while_the_agent_was_down_keeps_its_pod(node: Node) -> None:
    node.put(plain())
    before = await node.until_running("web")
    node.kill_agent()
    Path(node.manifests / "web.yaml").write_text("{")
    await node.start_agent()
    after = await node.until_running("web")
    assert status_of({"web": after})["containerID"] == status_of({"web": before})["containerID"]
    await node.until_problems("web.yaml")


async def test_a_crid_that_was_killed_comes_back_under_a_running_agent(node: Node) -> None:
    node.put(plain())
    before = await node.until_running("web")
    node.crid.kill()
    await asyncio.sleep(0.3)
    node.put(plain("second"), "second.yaml")
    await asyncio.sleep(0.5)
    await node.crid.start()
    pods = await node.until(lambda pods: pods["second"]["status"]["phase"] == "Running")
    assert status_of(pods) == status_of({"web": before})


async def test_a_container_that_ended_while_the_agent_was_down_is_restarted(node: Node) -> None:
    node.put(plain())
    await node.until_running("web")
    node.kill_agent()
    (found,) = (await node.crid.cri.ListContainers()).containers
    await node.crid.cri.StopContainer(container_id=found.id)
    await node.start_agent()
    pods = await node.until(lambda pods: status_of(pods)["restartCount"] == 1)
    assert "running" in status_of(pods)["state"]


async def test_back_off_survives_the_agent(node: Node) -> None:
    document = manifest("web", container(command=["false"]), terminationGracePeriodSeconds=0)
    node.put(document)
    pods = await node.until(lambda pods: "waiting" in status_of(pods)["state"] and status_of(pods)["restartCount"] == 1)
    node.kill_agent()
    await node.start_agent()
    pods = await node.until(lambda pods: "web" in pods and "containerID" in status_of(pods))
    assert status_of(pods)["state"]["waiting"]["reason"] == "CrashLoopBackOff"
    assert status_of(pods)["restartCount"] == 1
