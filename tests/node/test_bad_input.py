"""What goes wrong with one pod is told with reason and message, and disturbs no other pod."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest_asyncio

from tests.support.agent import status_of, waits_for
from tests.support.node import Node
from tests.support.pods import container, manifest

SLEEP = ["sleep", "600"]


@pytest_asyncio.fixture(loop_scope="session")
async def beside(node: Node) -> AsyncIterator[Node]:
    """The node with a good pod beside the bad one, which must not be touched."""
    node.put(manifest("good", container(command=SLEEP), terminationGracePeriodSeconds=0), "good.yaml")
    good = await node.until_running("good")
    yield node
    after = (await node.until_running("good"))["status"]["containerStatuses"][0]
    before = good["status"]["containerStatuses"][0]
    assert (after["containerID"], after["restartCount"]) == (before["containerID"], 0)


def bad(**fields: Any) -> dict[str, Any]:
    return manifest("web", container(**{"command": SLEEP} | fields), terminationGracePeriodSeconds=0)


async def test_a_manifest_that_is_none(beside: Node) -> None:
    (beside.manifests / "web.yaml").write_text(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec:\n  containers: [\n"
    )
    (beside.manifests / "field.yaml").write_text(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec: {containers: 1}\n"
    )
    problems = await beside.until_problems("web.yaml", "field.yaml")
    assert problems["web.yaml"]["line"] == 6
    assert "not YAML" in problems["web.yaml"]["reason"]
    assert problems["field.yaml"]["path"] == "spec.containers"
    assert set(await beside.pods()) == {"good"}


async def test_an_image_that_is_nowhere(beside: Node) -> None:
    beside.put(bad(image="127.0.0.1:1/nothing:1"))
    pods = await beside.until(lambda pods: waits_for(pods, "ImagePullBackOff"))
    message = status_of(pods)["state"]["waiting"]["message"]
    assert "127.0.0.1:1/nothing:1" in message
    assert pods["web"]["status"]["phase"] == "Pending"


async def test_an_image_name_that_is_none(beside: Node) -> None:
    beside.put(bad(image="Not//An:Image:"))
    pods = await beside.until(lambda pods: waits_for(pods, "InvalidImageName"))
    assert "Not//An:Image:" in status_of(pods)["state"]["waiting"]["message"]


async def test_a_command_that_is_missing(beside: Node) -> None:
    beside.put(bad(command=["/no/such/thing"]))
    pods = await beside.until(lambda pods: waits_for(pods, "RunContainerError") or waits_for(pods, "CrashLoopBackOff"))
    status = status_of(pods)
    words = str(status["state"]) + str(status["lastState"])
    assert "/no/such/thing" in words
    assert "no such file" in words.lower()


async def test_a_user_that_is_not_in_the_image(beside: Node) -> None:
    beside.put(bad(securityContext={"runAsNonRoot": True}))
    pods = await beside.until(lambda pods: waits_for(pods, "CreateContainerConfigError"))
    assert "set runAsUser to another number" in status_of(pods)["state"]["waiting"]["message"]


async def test_a_host_path_that_is_missing_and_then_comes(beside: Node) -> None:
    place = beside.base / "later"
    document = bad(volumeMounts=[{"name": "data", "mountPath": "/data"}])
    document["spec"]["volumes"] = [{"name": "data", "hostPath": {"path": str(place), "type": "Directory"}}]
    beside.put(document)
    pods = await beside.until(lambda pods: pods["web"]["status"].get("reason") == "FailedMount")
    assert str(place) in pods["web"]["status"]["message"]
    place.mkdir()
    await beside.until_running("web")


async def test_a_csi_driver_that_is_gone_and_then_comes(beside: Node) -> None:
    document = bad(volumeMounts=[{"name": "data", "mountPath": "/data"}])
    document["spec"]["volumes"] = [{"name": "data", "csi": {"driver": "hostpath.csi.nodeagent"}}]
    beside.put(document)
    pods = await beside.until(lambda pods: pods["web"]["status"].get("reason") == "FailedMount", 60)
    assert "CSI driver hostpath.csi.nodeagent is not registered" in pods["web"]["status"]["message"]
    driver = beside.start_csi_driver()
    await beside.until_running("web")
    driver.kill()
    driver.wait(10)
    beside.remove()
    await beside.until(lambda pods: set(pods) == {"good"}), "a driver that is gone does not hold up the pod's end"
    beside.start_csi_driver()


async def test_a_claim_that_nothing_fulfils(beside: Node) -> None:
    document = bad(volumeMounts=[{"name": "data", "mountPath": "/data"}])
    document["spec"]["volumes"] = [{"name": "data", "persistentVolumeClaim": {"claimName": "absent"}}]
    beside.put(document)
    pods = await beside.until(lambda pods: pods["web"]["status"].get("reason") == "FailedMount")
    assert "absent" in pods["web"]["status"]["message"]


async def test_a_host_port_that_is_taken(beside: Node) -> None:
    ports = [{"containerPort": 80, "hostPort": 18473}]
    beside.put(bad(ports=ports))
    await beside.until_running("web")
    other = manifest("other", container(command=SLEEP, ports=ports), terminationGracePeriodSeconds=0)
    beside.put(other, "other.yaml")
    pods = await beside.until(lambda pods: pods["other"]["status"].get("reason") == "FailedCreatePodSandBox")
    assert "18473" in pods["other"]["status"]["message"]
    beside.remove()
    await beside.until_running("other")
