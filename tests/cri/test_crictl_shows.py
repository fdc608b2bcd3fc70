"""crictl shows things: each list, inspection and statistic, in each of its formats, against what is so."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest
import yaml

from cri.proto import api_pb2 as api
from tests.support.crictl import Crictl, Files, covers
from tests.support.crid import Crid

pytestmark = pytest.mark.timeout(900)  # the first run builds crictl


@covers("version")
async def test_version(crictl: Crictl) -> None:
    assert "RuntimeName:  crid" in await crictl.text("version")
    assert "RuntimeApiVersion:  v1" in await crictl.text("version")


@covers("info", "runtime-config")
async def test_the_runtime_itself(crictl: Crictl) -> None:
    info = await crictl.json("info")
    conditions = {condition["type"]: condition["status"] for condition in info["status"]["conditions"]}
    assert conditions == {"RuntimeReady": True, "NetworkReady": True}
    default = next(each for each in info["runtimeHandlers"] if not each.get("name"))
    assert default["features"]["recursive_read_only_mounts"]
    assert info["features"]["supplemental_groups_policy"]
    assert yaml.safe_load(await crictl.text("info", "-o", "yaml"))["status"] == info["status"]
    assert await crictl.template("info", "{{len .status.conditions}}") == "2"
    assert "config" not in json.loads(await crictl.text("info", "--quiet"))
    assert "CGROUPFS" in await crictl.text("runtime-config")


@covers("ps", "pods", "run")
async def test_lists_and_their_filters(crid: Crid, crictl: Crictl, files: Files, busybox: str) -> None:
    container = await crictl.text("run", files.container, files.pod)
    other = await crid.run_pod(labels={"app": "other"})
    exited = await crid.run(other, busybox, ["true"], name="short", labels={"tier": "back"})
    await crid.ended(exited)

    async def listed(verb: str, *flags: str) -> set[str]:
        return set((await crictl.text(verb, "-q", *flags)).split())

    [pod] = await listed("pods", "--name", files.name)
    assert await listed("ps") == {container}
    assert await listed("ps", "-a") == {container, exited}
    assert await listed("ps", "--state", "exited") == {exited}
    assert await listed("ps", "-a", "--label", "tier=back") == {exited}
    assert await listed("ps", "-a", "--pod", pod) == {container}
    assert await listed("ps", "-a", "--name", "^short$") == {exited}
    assert await listed("ps", "-a", "--id", exited[:12]) == {exited}
    assert await listed("ps", "-a", "--image", busybox) == {container, exited}
    assert await listed("ps", "--latest") == {exited}
    assert await listed("pods") == {pod, other[0]}
    assert await listed("pods", "--label", "app=other") == {other[0]}
    assert await listed("pods", "--latest") == {other[0]}
    await crid.cri.StopPodSandbox(pod_sandbox_id=other[0])
    assert await listed("pods", "--state", "NotReady") == {other[0]}
    table = (await crictl.text("ps", "--no-trunc")).splitlines()
    assert table[0].split()[:2] == ["CONTAINER", "IMAGE"]
    assert container in table[1]
    assert "Running" in table[1]
    assert "Ready" in await crictl.text("pods", "-v")
    assert yaml.safe_load(await crictl.text("pods", "-o", "yaml")) == await crictl.json("pods")


@covers("inspect", "run")
async def test_inspect(crid: Crid, crictl: Crictl, files: Files, busybox: str) -> None:
    container = await crictl.text("run", files.container, files.pod)
    shown = await crictl.json("inspect", container)
    status = shown["status"]
    assert (status["state"], status["image"]["image"]) == ("CONTAINER_RUNNING", busybox)
    assert status["imageId"] == (await crid.cri.ImageStatus(image={"image": busybox})).image.id
    assert status["labels"] == {"tier": "front"}
    assert status["logPath"] == str(files.logs / "main.log")
    assert os.readlink(f"/proc/{shown['info']['pid']}/exe").endswith("busybox") or shown["info"]["pid"] > 0
    assert shown["info"]["runtimeSpec"]["process"]["args"] == ["sh", "-c", Files.SCRIPT]
    assert await crictl.template("inspect", "{{.status.metadata.name}}", container) == "main"
    assert yaml.safe_load(await crictl.text("inspect", "-o", "yaml", container))["status"]["id"] == container
    assert f"ID: {container}" in await crictl.text("inspect", "-o", "table", container)
    assert "info" not in json.loads(await crictl.text("inspect", "--quiet", container))


@covers("inspectp", "run", "pods")
async def test_inspectp(crid: Crid, crictl: Crictl, files: Files) -> None:
    await crictl.text("run", files.container, files.pod)
    pod = await crictl.text("pods", "-q")
    shown = await crictl.json("inspectp", pod)
    assert shown["status"]["network"]["ip"].startswith(crid.subnet.rsplit(".", 1)[0])
    assert shown["status"]["labels"] == {"app": "web"}
    # How tools of other projects find the pod's network namespace.
    find = '{{range .info.runtimeSpec.linux.namespaces}}{{if eq .type "network"}}{{.path}}{{end}}{{end}}'
    netns = await crictl.template("inspectp", find, pod)
    pid = (await crid.cri.ContainerStatus(container_id=await crictl.text("ps", "-q"), verbose=True)).info["info"]
    assert os.stat(netns).st_ino == os.stat(f"/proc/{json.loads(pid)['pid']}/ns/net").st_ino
    assert await crictl.template("inspectp", "{{.status.state}}", pod) == "SANDBOX_READY"
    assert yaml.safe_load(await crictl.text("inspectp", "-o", "yaml", pod))["status"] == shown["status"]
    assert f"ID: {pod}" in await crictl.text("inspectp", "-o", "table", pod)


@covers("images", "inspecti", "imagefsinfo")
async def test_images(crid: Crid, crictl: Crictl, busybox: str) -> None:
    image = (await crid.cri.ImageStatus(image={"image": busybox})).image
    assert await crictl.text("images", "-q", busybox) == image.id
    digest = image.repo_digests[0].partition("@sha256:")[2][:13]
    header, *rows = (await crictl.text("images", "--digests", "--pinned")).splitlines()
    assert header.split() == ["IMAGE", "TAG", "DIGEST", "IMAGE", "ID", "SIZE", "PINNED"]
    assert any(digest in row and busybox.rpartition(":")[0] in row for row in rows)
    assert await crictl.template("inspecti", "{{.status.id}}", busybox) == image.id
    assert yaml.safe_load(await crictl.text("inspecti", "-o", "yaml", busybox))["status"]["id"] == image.id
    assert busybox in await crictl.text("inspecti", "-o", "table", busybox)
    shown = yaml.safe_load(await crictl.text("imagefsinfo", "-o", "yaml"))["status"]
    assert shown["imageFilesystems"][0]["fsId"]["mountpoint"] == str(crid.root)
    assert shown["containerFilesystems"]
    assert str(crid.root) in await crictl.template("imagefsinfo", "{{.status.imageFilesystems}}")


@covers("stats", "statsp", "run")
async def test_statistics(crid: Crid, crictl: Crictl, files: Files) -> None:
    container = await crictl.text("run", files.container, files.pod)
    [stats] = (await crictl.json("stats", container))["stats"]
    assert int(stats["memory"]["workingSetBytes"]["value"]) > 0
    assert int(stats["cpu"]["usageCoreNanoSeconds"]["value"]) > 0
    assert stats["attributes"]["labels"] == {"tier": "front"}
    row = (await crictl.text("stats", "--seconds", "0", "--label", "tier=front")).splitlines()[-1]
    assert row.split()[:2] == [container[:13], "main"]
    [pod] = (await crictl.json("statsp"))["stats"]
    assert pod["attributes"]["metadata"]["name"] == files.name
    assert pod["linux"]["network"]["defaultInterface"]["name"] == "eth0"
    assert files.name in (await crictl.text("statsp", "--seconds", "0")).splitlines()[-1]
    assert (await crictl.json("stats", "--label", "tier=none"))["stats"] == []


@covers("metricdescs", "metricsp", "run")
async def test_metrics(crictl: Crictl, files: Files) -> None:
    await crictl.text("run", files.container, files.pod)
    described = json.loads(await crictl.text("metricdescs"))["descriptors"]
    names = {each["name"]: len(each["labelKeys"]) for each in described}
    [pod] = json.loads(await crictl.text("metricsp"))["podMetrics"]
    delivered: list[Any] = [*pod["metrics"], *pod["containerMetrics"][0]["metrics"]]
    assert {metric["name"]: len(metric["labelValues"]) for metric in delivered}.items() <= names.items()


@covers("config", "completion")
async def test_what_needs_no_runtime(crid: Crid, crictl: Crictl) -> None:
    assert await crictl.text("config", "--get", "runtime-endpoint") == f"unix://{crid.socket}"
    await crictl.text("config", "--set", "timeout=7")
    assert await crictl.text("config", "--get", "timeout") == "7"
    assert "runtime-endpoint" in await crictl.text("config", "--list")
    for shell in ("bash", "zsh", "fish"):
        assert "crictl" in await crictl.text("completion", shell)


async def test_states_of_the_table_are_those_of_the_interface(crid: Crid, crictl: Crictl, busybox: str) -> None:
    pod = await crid.run_pod()
    ids = [await crid.create(pod, busybox, ["sleep", "1000"], name=name) for name in ("created", "running", "exited")]
    for id in ids[1:]:
        await crid.cri.StartContainer(container_id=id)
    await crid.cri.StopContainer(container_id=ids[2])
    for id, state in zip(ids, (api.CONTAINER_CREATED, api.CONTAINER_RUNNING, api.CONTAINER_EXITED), strict=True):
        word = api.ContainerState.Name(state).removeprefix("CONTAINER_").title()
        row = next(line for line in (await crictl.text("ps", "-a")).splitlines() if id[:13] in line)
        assert f" {word} " in row
