"""The agent on another runtime: containerd with runc, through the CRI and nothing else."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from cri.client import CriClientSync
from cri.proto import api_pb2
from tests.bench.containerd import Containerd
from tests.bench.payload import SMALL, push_small
from tests.support.agent import Agent, status_of, waits_for
from tests.support.peers import PeerUnavailable
from tests.support.pods import container, manifest
from tests.support.registry import Registry

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def containerd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Containerd]:
    with Registry(tmp_path_factory.mktemp("registry")) as registry:
        push_small(registry)
        try:
            made = Containerd(registry.host)
        except (PeerUnavailable, FileNotFoundError) as reason:
            pytest.skip(str(reason))
        with made as running:
            yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def agent(containerd: Containerd) -> AsyncIterator[Agent]:
    base = containerd.home / "a"
    base.mkdir()
    made = Agent(base, containerd.address, containerd.cgroup_parent)
    try:
        await made.start_agent()
        yield made
    except BaseException:
        print(made.tail(), containerd.last_words())
        raise
    finally:
        await made.close()


def busybox(containerd: Containerd, name: str = "main", **fields: Any) -> dict[str, Any]:
    return container(name, image=containerd.image(SMALL), **fields)


def containers(containerd: Containerd) -> list[api_pb2.Container]:
    with CriClientSync(containerd.address) as cri:
        return list(cri.ListContainers().containers)


async def test_a_pod_with_a_shared_volume_runs_and_ends(agent: Agent, containerd: Containerd) -> None:
    mount = {"name": "site", "mountPath": "/site"}
    server = busybox(containerd, "server", command=["httpd", "-f", "-p", "80", "-h", "/site"], volumeMounts=[mount])
    script = "echo from the sidecar > /site/index.html; exec sleep 600"
    writer = busybox(containerd, "writer", command=["sh", "-c", script], volumeMounts=[mount])
    document = manifest("web", server, writer, volumes=[{"name": "site", "emptyDir": {}}])
    agent.put(document | {"spec": document["spec"] | {"terminationGracePeriodSeconds": 1}})
    pod = await agent.until_running("web")
    assert pod["status"]["podIP"]
    uid = pod["metadata"]["uid"]
    site = agent.kubelet_root / "pods" / uid / "volumes" / "kubernetes.io~empty-dir" / "site" / "index.html"
    await asyncio.to_thread(_wait_for, site)
    agent.kill_agent()
    before = {each.id for each in containers(containerd)}
    await agent.start_agent()
    after = await agent.until_running("web")
    assert after["status"]["containerStatuses"] == pod["status"]["containerStatuses"]
    assert {each.id for each in containers(containerd)} == before
    agent.remove()
    await agent.until_gone()
    assert containers(containerd) == []


async def test_a_crash_is_seen_by_its_event(agent: Agent, containerd: Containerd) -> None:
    document = manifest("web", busybox(containerd, command=["sh", "-c", "sleep 1; exit 3"]))
    agent.put(document)
    pods = await agent.until(lambda pods: waits_for(pods, "CrashLoopBackOff"), 30)
    assert status_of(pods)["lastState"]["terminated"]["exitCode"] == 3
    agent.remove()
    await agent.until_gone()


async def test_bad_input_has_the_same_reasons(agent: Agent, containerd: Containerd) -> None:
    agent.put(manifest("web", busybox(containerd, command=["/no/such/thing"])))
    agent.put(manifest("other", container(image=f"{containerd.registry}/nothing:1")), "other.yaml")
    pods = await agent.until(
        lambda pods: (
            waits_for(pods, "ImagePullBackOff", pod="other")
            and (waits_for(pods, "RunContainerError") or waits_for(pods, "CrashLoopBackOff"))
        ),
        30,
    )
    words = str(status_of(pods)["state"]) + str(status_of(pods)["lastState"])
    assert "/no/such/thing" in words


def _wait_for(path: Path) -> None:
    for _ in range(100):
        if path.exists() and path.read_text() == "from the sidecar\n":
            return
        time.sleep(0.05)
    raise AssertionError(f"{path} does not come")
