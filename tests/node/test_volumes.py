"""CSI volumes of pods from manifests, by a driver in a process of its own: claims keep data, inline ones do not."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest_asyncio

from tests.support.node import Node
from tests.support.pods import container, manifest
from tests.support.volume_documents import claim, claimed, inline, volume

DRIVER = "hostpath.csi.nodeagent"
MOUNT = {"name": "data", "mountPath": "/data"}


@pytest_asyncio.fixture(loop_scope="session")
async def storage(node: Node) -> AsyncIterator[Node]:
    driver = node.start_csi_driver()
    node.put({"kind": "List", "items": [volume(driver=DRIVER), claim()]}, "storage.yaml")
    yield node
    for file in ("web.yaml", "storage.yaml"):
        (node.manifests / file).unlink(missing_ok=True)
    await node.until_gone()
    driver.terminate()
    driver.wait(20)
    node.others.remove(driver)


def writer(script: str, source: dict[str, Any], name: str = "web") -> dict[str, Any]:
    main = container(command=["sh", "-c", f"{script}; exec sleep 600"], volumeMounts=[MOUNT])
    return manifest(name, main, volumes=[source], terminationGracePeriodSeconds=0)


def published(node: Node, pod: dict[str, Any]) -> Path:
    return node.kubelet_root / "pods" / pod["metadata"]["uid"] / "volumes" / "kubernetes.io~csi" / "data" / "mount"


def holds(path: Path, text: str) -> bool:
    return path.exists() and path.read_text() == text


async def test_a_claim_keeps_its_data_over_pods_and_kills(storage: Node) -> None:
    storage.put(writer("echo first >> /data/said", claimed()))
    pod = await storage.until_running("web")
    said = published(storage, pod) / "said"
    await storage.until(lambda _: holds(said, "first\n"))
    storage.kill_agent()
    await storage.start_agent()
    after = await storage.until_running("web")
    assert after["status"]["containerStatuses"] == pod["status"]["containerStatuses"]
    storage.put(writer("echo second >> /data/said", claimed()))
    pods = await storage.until(
        lambda pods: (
            pods["web"]["metadata"]["uid"] != pod["metadata"]["uid"] and pods["web"]["status"]["phase"] == "Running"
        )
    )
    await storage.until(lambda _: holds(published(storage, pods["web"]) / "said", "first\nsecond\n"))
    assert not said.exists()


async def test_an_inline_volume_lives_as_long_as_its_pod(storage: Node) -> None:
    storage.put(writer("cat /data/said; echo once > /data/said", inline(DRIVER, "data")))
    pod = await storage.until_running("web")
    place = published(storage, pod)
    await storage.until(lambda _: holds(place / "said", "once\n"))
    storage.remove()
    await storage.until_gone()
    assert not place.exists()


async def test_a_claim_that_is_wrong_is_reported_with_its_field(storage: Node) -> None:
    wrong = claim("bad")
    wrong["spec"]["resources"]["requests"]["storage"] = "much"
    (storage.manifests / "bad.yaml").write_text(json.dumps(wrong))
    problems = await storage.until_problems("PersistentVolumeClaim default/bad")
    assert "spec.resources.requests.storage" in problems["PersistentVolumeClaim default/bad"]["reason"]
    (storage.manifests / "bad.yaml").unlink()


async def test_a_pod_that_is_over_gives_its_claim_back(storage: Node) -> None:
    document = writer("true", claimed())
    document["spec"]["restartPolicy"] = "Never"
    document["spec"]["containers"][0]["command"] = ["sh", "-c", "echo done > /data/said"]
    storage.put(document)
    pods = await storage.until(lambda pods: pods["web"]["status"]["phase"] == "Succeeded")
    await storage.until(lambda _: not published(storage, pods["web"]).exists())
