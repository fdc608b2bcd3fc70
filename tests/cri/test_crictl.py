"""crictl changes things: pods, containers and images, from their creation to their removal; and none is forgotten."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path

import pytest

from runtime.linux.files import read_limited
from tests.support.crictl import Crictl, Files, covers
from tests.support.crid import Crid
from tests.support.images import busybox_rootfs, push_image
from tests.support.registry import PASSWORD, USER, Registry

pytestmark = pytest.mark.timeout(900)  # the first run builds crictl


async def test_every_subcommand_is_in_a_test(crictl: Crictl) -> None:
    listing = (await crictl.text("--help")).partition("COMMANDS:")[2].partition("GLOBAL OPTIONS:")[0]
    there = set(re.findall(r"^   ([a-z-]+)", listing, re.MULTILINE)) - {"help"}
    files = Path(__file__).parent.glob("test_crictl*.py")
    marks = re.findall(r"^@covers\(([^)]*)\)", "\n".join(file.read_text() for file in files), re.MULTILINE)
    assert len(there) >= 32
    assert there == {verb for mark in marks for verb in re.findall(r'"([^"]+)"', mark)}


@covers("runp", "create", "start", "stop", "rm", "stopp", "rmp", "ps", "pods", "inspect")
async def test_a_pods_whole_life(crictl: Crictl, files: Files) -> None:
    pod = await crictl.text("runp", files.pod)
    container = await crictl.text("create", pod, files.container, files.pod)
    assert (await crictl.json("ps", "-a"))["containers"][0]["state"] == "CONTAINER_CREATED"
    assert await crictl.text("start", container) == container
    [listed] = (await crictl.json("ps"))["containers"]
    assert (listed["id"], listed["podSandboxId"], listed["state"]) == (container, pod, "CONTAINER_RUNNING")
    [sandbox] = (await crictl.json("pods"))["items"]
    assert (sandbox["id"], sandbox["state"], sandbox["metadata"]["name"]) == (pod, "SANDBOX_READY", files.name)
    refused = await crictl("rm", container)
    assert b"is running" in refused.err + refused.out
    assert await crictl.text("stop", "--timeout", "10", container) == container
    assert (await crictl.json("inspect", container))["status"]["exitCode"] == 3
    assert await crictl.text("rm", container) == container
    assert "Stopped sandbox" in await crictl.text("stopp", pod)
    assert "Removed sandbox" in await crictl.text("rmp", pod)
    assert (await crictl.json("pods"))["items"] == []


@covers("run", "rm", "rmp", "ps")
async def test_run_makes_a_pod_and_its_container_at_once(crictl: Crictl, files: Files) -> None:
    container = await crictl.text("run", files.container, files.pod)
    assert await crictl.text("ps", "-q") == container
    assert container in await crictl.text("rm", "-f", container)
    assert (await crictl("rmp", "-f", "-a")).code == 0
    assert (await crictl.json("ps", "-a"))["containers"] == []


@covers("runp")
async def test_an_unknown_runtime_handler(crictl: Crictl, files: Files) -> None:
    said = await crictl("runp", "--runtime", "no-such-handler", files.pod)
    assert said.code
    assert b"no-such-handler" in said.err


@covers("update", "run", "inspect")
async def test_update_reaches_the_kernel_and_the_status(crid: Crid, crictl: Crictl, files: Files) -> None:
    container = await crictl.text("run", files.container, files.pod)
    flags = ["--memory", str(64 << 20), "--cpu-quota", "20000", "--cpu-period", "100000", "--cpu-share", "512"]
    assert await crictl.text("update", *flags, container) == container
    linux = (await crictl.json("inspect", container))["status"]["resources"]["linux"]
    assert (linux["memoryLimitInBytes"], linux["cpuQuota"], linux["cpuShares"]) == (str(64 << 20), "20000", "512")
    pid = (await crictl.json("inspect", container))["info"]["pid"]
    assert memory_limit(pid) == 64 << 20
    refused = await crictl("update", "--memory", "-5", container)
    assert refused.code
    assert memory_limit(pid) == 64 << 20


def memory_limit(pid: int) -> int:
    """What the kernel holds a process to, wherever its memory controller is."""
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "memory":
            return int(read_limited(f"/sys/fs/cgroup/memory{path}/memory.limit_in_bytes", 64))
        unified = Path("/sys/fs/cgroup" + path, "memory.max")
        if not controllers and unified.exists():
            return int(unified.read_text())
    raise AssertionError(f"process {pid} is in no memory cgroup")


@covers("images", "pull", "inspecti", "imagefsinfo", "rmi")
async def test_images(crictl: Crictl, busybox: str) -> None:
    [image] = [item for item in (await crictl.json("images"))["images"] if busybox in item["repoTags"]]
    assert "Image is up to date" in await crictl.text("pull", busybox)
    described = await crictl.json("inspecti", busybox)
    assert described["status"]["id"] == image["id"]
    assert described["info"]["imageSpec"]["config"]["Env"] == ["FROM=image"]
    [filesystem] = (await crictl.json("imagefsinfo"))["status"]["imageFilesystems"]
    assert int(filesystem["usedBytes"]["value"]) > 0
    assert busybox in await crictl.text("rmi", busybox)
    assert image["id"] not in [item["id"] for item in (await crictl.json("images"))["images"]]
    assert "Image is up to date" in await crictl.text("pull", busybox)
    said = await crictl("rmi", "no/such:image")
    assert b"no such image" in said.err


@covers("rmi", "run", "rmp")
async def test_prune_removes_what_no_container_uses(
    crid: Crid, crictl: Crictl, files: Files, registry: Registry
) -> None:
    unused = push_image(registry, "unused:1", [busybox_rootfs()], {"Cmd": ["unused"]})
    await crid.cri.PullImage(image={"image": unused.ref})
    await crictl.text("run", files.container, files.pod)
    await crictl.text("rmi", "--prune")
    left = {tag for image in (await crid.cri.ListImages()).images for tag in image.repo_tags}
    assert unused.ref not in left
    assert files.container_config["image"]["image"] in left
    await crictl.text("rmp", "-f", "-a")


@covers("pull")
async def test_pulls_with_credentials(crid: Crid, crictl: Crictl, tmp_path: Path) -> None:
    with Registry(tmp_path / "private", auth=True) as private:
        crid.trust_plain_http(private.host)
        pushed = push_image(private, "secret:1", [busybox_rootfs()], {"Cmd": ["secret"]})
        assert b"Unauthenticated" in (await crictl("pull", pushed.ref)).err
        encoded = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        for flags in (["--creds", f"{USER}:{PASSWORD}"], ["--auth", encoded]):
            assert pushed.image_id in await crictl.text("pull", *flags, pushed.ref)
            await crid.cri.RemoveImage(image={"image": pushed.ref})


@covers("checkpoint", "run")
async def test_checkpoint_is_answered(crictl: Crictl, files: Files, tmp_path: Path) -> None:
    """A checkpoint where the host can make one, else a refusal that says what is missing; the container runs on."""
    container = await crictl.text("run", files.container, files.pod)
    archive = tmp_path / "checkpoint.tar"
    said = await crictl("checkpoint", f"--export={archive}", container)
    if said.code == 0:
        assert archive.stat().st_size > 0
    else:
        assert b"FailedPrecondition" in said.err
        assert b"CRIU" in said.err
        assert not archive.exists()
    assert (await crictl.json("inspect", container))["status"]["state"] == "CONTAINER_RUNNING"


@covers("update-runtime-config", "runp", "inspectp")
async def test_the_pod_network_is_another_one_for_pods_to_come(crid: Crid, crictl: Crictl, files: Files) -> None:
    pod = await crictl.text("runp", files.pod)
    refused = await crictl("update-runtime-config", "--pod-cidr", "not-a-cidr")
    assert b"InvalidArgument" in refused.err
    await crictl.text("update-runtime-config", "--pod-cidr", "10.127.5.0/24")
    try:
        files.pod_config["metadata"] = {**files.pod_config["metadata"], "attempt": 2}
        later = await crictl.text("runp", files.pod)
    finally:
        await crictl.text("update-runtime-config", "--pod-cidr", crid.subnet)
    assert (await address(crictl, later)).startswith("10.127.5.")
    assert (await address(crictl, pod)).startswith(crid.subnet.rsplit(".", 1)[0])


async def address(crictl: Crictl, pod: str) -> str:
    return str(json.loads(await crictl.text("inspectp", "-o", "json", pod))["status"]["network"]["ip"])


NOT_THERE = "inspect inspectp start exec attach logs port-forward update checkpoint"


@pytest.mark.parametrize("verb", NOT_THERE.split())
async def test_what_is_not_there_is_named(crictl: Crictl, verb: str) -> None:
    rest = {"exec": ["true"], "port-forward": ["80"], "update": []}.get(verb, [])
    flags = {"update": ["--memory", "1000000"], "checkpoint": ["--export=/tmp/no.tar"]}.get(verb, [])
    said = await crictl(verb, *flags, "no-such", *rest)
    assert said.code
    assert b"NotFound" in said.err
    assert b"no-such" in said.err


@pytest.mark.parametrize("verb", ["stop", "stopp"])
async def test_what_is_not_there_is_stopped(crictl: Crictl, verb: str) -> None:
    assert "no-such" in await crictl.text(verb, "no-such")
