"""crictl, the ecosystem's own command, does what an operator does with it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from tests.support.crid import Crid
from tests.support.outside import Crictl

pytestmark = pytest.mark.timeout(900)  # the first run builds crictl


@pytest.fixture
def crictl(crid: Crid, tmp_path: Path) -> Crictl:
    return Crictl(crid.socket, tmp_path)


class Files:
    """Configuration files as crictl reads them."""

    def __init__(self, crid: Crid, folder: Path, image: str) -> None:
        config = crid.pod_config("web")
        self.name = config.metadata.name
        self.pod = folder / "pod.json"
        self.container = folder / "container.json"
        metadata = {"name": self.name, "namespace": "test", "uid": config.metadata.uid, "attempt": 1}
        self.pod.write_text(
            json.dumps({"metadata": metadata, "log_directory": config.log_directory, "hostname": "web", "linux": {}})
        )
        script = "echo started; echo to stderr >&2; trap 'exit 3' TERM; while :; do sleep 0.1; done"
        self.container.write_text(
            json.dumps(
                {
                    "metadata": {"name": "main"},
                    "image": {"image": image},
                    "command": ["sh", "-c", script],
                    "log_path": "main.log",
                    "linux": {},
                }
            )
        )


@pytest.fixture
def files(crid: Crid, tmp_path: Path, busybox: str) -> Files:
    return Files(crid, tmp_path, busybox)


async def test_a_pods_whole_life(crictl: Crictl, files: Files) -> None:
    pod = await crictl.text("runp", files.pod)
    container = await crictl.text("create", pod, files.container, files.pod)
    assert (await crictl.json("ps", "-a"))["containers"][0]["state"] == "CONTAINER_CREATED"
    assert await crictl.text("start", container) == container
    [listed] = (await crictl.json("ps"))["containers"]
    assert (listed["id"], listed["podSandboxId"], listed["state"]) == (container, pod, "CONTAINER_RUNNING")
    [sandbox] = (await crictl.json("pods"))["items"]
    assert (sandbox["id"], sandbox["state"], sandbox["metadata"]["name"]) == (pod, "SANDBOX_READY", files.name)
    assert await crictl.text("stop", "--timeout", "10", container) == container
    assert (await crictl.json("inspect", container))["status"]["exitCode"] == 3
    assert await crictl.text("rm", container) == container
    assert "Stopped sandbox" in await crictl.text("stopp", pod)
    assert "Removed sandbox" in await crictl.text("rmp", pod)
    assert (await crictl.json("pods"))["items"] == []


async def test_run_makes_a_pod_and_its_container_at_once(crictl: Crictl, files: Files) -> None:
    container = await crictl.text("run", files.container, files.pod)
    assert [item["id"] for item in (await crictl.json("ps"))["containers"]] == [container]
    assert (await crictl("rmp", "-f", "-a")).code == 0
    assert (await crictl.json("ps", "-a"))["containers"] == []


async def test_what_it_shows_of_a_running_pod(crid: Crid, crictl: Crictl, files: Files, busybox: str) -> None:
    container = await crictl.text("run", files.container, files.pod)
    status = (await crictl.json("inspect", container))["status"]
    assert status["state"] == "CONTAINER_RUNNING"
    assert status["image"]["image"]
    [pod] = (await crictl.json("pods"))["items"]
    described = await crictl.json("inspectp", pod["id"])
    assert described["status"]["network"]["ip"].startswith(crid.subnet.rsplit(".", 1)[0])
    assert (await crictl.json("inspecti", busybox))["status"]["id"] == status["imageId"]
    [stats] = (await crictl.json("stats", container))["stats"]
    assert int(stats["memory"]["workingSetBytes"]["value"]) > 0
    [pod_stats] = (await crictl.json("statsp", pod["id"]))["stats"]
    assert pod_stats["attributes"]["id"] == pod["id"]


async def test_logs(crictl: Crictl, files: Files) -> None:
    container = await crictl.text("run", files.container, files.pod)
    await asyncio.sleep(0.3)
    said = await crictl("logs", container)
    assert (said.code, said.out, said.err) == (0, b"started\n", b"to stderr\n")
    assert (await crictl("logs", "--tail", "0", container)).out == b""
    assert b"T" in (await crictl("logs", "-t", container)).out.split()[0]


async def test_images(crictl: Crictl, busybox: str) -> None:
    [image] = [item for item in (await crictl.json("images"))["images"] if busybox in item["repoTags"]]
    assert "Image is up to date" in await crictl.text("pull", busybox)
    [filesystem] = (await crictl.json("imagefsinfo"))["status"]["imageFilesystems"]
    assert int(filesystem["usedBytes"]["value"]) > 0
    said = await crictl("rmi", busybox)
    assert busybox.encode() in said.out
    assert image["id"] not in [item["id"] for item in (await crictl.json("images"))["images"]]
    assert "Image is up to date" in await crictl.text("pull", busybox)


async def test_the_runtime_itself(crictl: Crictl) -> None:
    assert "RuntimeApiVersion:  v1" in await crictl.text("version")
    info = await crictl.json("info")
    conditions = {condition["type"]: condition["status"] for condition in info["status"]["conditions"]}
    assert conditions["RuntimeReady"]
    assert conditions["NetworkReady"]
    assert "CGROUPFS" in (await crictl.text("runtime-config")).upper()


async def test_events(crictl: Crictl, files: Files) -> None:
    watching = await asyncio.create_subprocess_exec(
        *crictl.command, "events", "-o", "json", stdout=asyncio.subprocess.PIPE
    )
    assert watching.stdout is not None
    await asyncio.sleep(0.5)  # it does not say when it has subscribed
    container = await crictl.text("run", files.container, files.pod)
    seen = b""
    async with asyncio.timeout(20):
        while container.encode() not in seen or b"CONTAINER_STARTED_EVENT" not in seen:
            seen += await watching.stdout.read(1 << 16)
    watching.kill()
    await watching.wait()


@pytest.mark.parametrize("verb", ["inspect", "inspectp", "start", "exec"])
async def test_what_is_not_there(crictl: Crictl, verb: str) -> None:
    said = await crictl(verb, "no-such", *(["true"] if verb == "exec" else []))
    assert said.code
    assert b"no-such" in said.err
