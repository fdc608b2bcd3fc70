"""CDI devices in real containers, of the built-in runtime and of an external one."""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from cri.client import CriError
from cri.proto import api_pb2 as api
from tests.support.crid import Crid, Sandbox, running_crid
from tests.support.images import busybox_rootfs, push_image
from tests.support.nri import NriPlugin
from tests.support.registry import Registry

THING = "vendor.example/thing"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def specifications(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cdi")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def crid(specifications: Path) -> AsyncIterator[Crid]:
    settings = f'cdi_spec_dirs = ["{specifications}"]\nruntimes.runc.path = "/usr/sbin/runc"'
    async with running_crid(settings=settings) as started:
        yield started


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def busybox(crid: Crid, registry: Registry) -> str:
    crid.trust_plain_http(registry.host)
    environment = ["LD_PRELOAD=/hostile.so", "FROM=image"]
    pushed = push_image(registry, "devices:1", [busybox_rootfs()], {"Cmd": ["sh"], "Env": environment})
    await crid.cri.PullImage(image={"image": pushed.ref})
    return pushed.ref


@pytest.fixture(params=["", "runc"])
def handler(request: pytest.FixtureRequest) -> str:
    if request.param and shutil.which(request.param) is None:
        pytest.skip(f"{request.param} is not installed (Debian: {request.param})")
    return str(request.param)


async def run_pod(crid: Crid, handler: str) -> Sandbox:
    config = crid.pod_config()
    request = api.RunPodSandboxRequest(config=config, runtime_handler=handler)
    return (await crid.cri.RunPodSandbox(request)).pod_sandbox_id, config


def describe(directory: Path, *devices: dict[str, Any], **edits: Any) -> None:
    document = {"cdiVersion": "1.0.0", "kind": THING, "devices": devices, "containerEdits": edits}
    (directory / "thing.json").write_text(json.dumps(document))


async def test_a_device_is_all_that_its_vendor_describes(
    crid: Crid, busybox: str, handler: str, specifications: Path, tmp_path: Path
) -> None:
    (tmp_path / "library").write_text("of the vendor\n")
    mount = {"hostPath": str(tmp_path), "containerPath": "/usr/lib/vendor", "options": ["ro", "nosuid", "rbind"]}
    node = {"path": "/dev/thing", "hostPath": "/dev/loop-control", "permissions": "r", "fileMode": 0o640}
    describe(
        specifications,
        {"name": "one", "containerEdits": {"deviceNodes": [node], "env": ["THING=one"]}},
        {"name": "two", "containerEdits": {"env": ["SECOND=two"], "additionalGids": [4321]}},
        mounts=[mount],
    )
    sandbox = await run_pod(crid, handler)
    script = (
        "echo $THING $SECOND; id -G; cat /usr/lib/vendor/library; touch /usr/lib/vendor/x 2>&1 | grep -c Read-only;"
        "stat -c '%t:%T %a %u' /dev/thing; (: < /dev/thing) && echo readable; (: > /dev/thing) 2>&1"
    )
    fields = {
        "CDI_devices": [{"name": f"{THING}=one"}],
        "annotations": {"cdi.k8s.io/vendor": f"{THING}=two,{THING}=one"},
    }
    await crid.ended(await crid.run(sandbox, busybox, ["sh", "-c", script], **fields))
    lines = crid.log_of(sandbox[1]).splitlines()
    assert lines[:6] == ["one two", "0 4321", "of the vendor", "1", "a:ed 640 0", "readable"]
    assert "not permitted" in lines[6]
    await crid.cri.RemovePodSandbox(pod_sandbox_id=sandbox[0])


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (
            {"CDI_devices": [{"name": f"{THING}=absent"}]},
            "NOT_FOUND: CDI devices not found: vendor.example/thing=absent",
        ),
        ({"CDI_devices": [{"name": "../../etc/passwd"}]}, "INVALID_ARGUMENT: CDI device '../../etc/passwd' is not"),
        ({"annotations": {"cdi.k8s.io/x": "thing"}}, "INVALID_ARGUMENT: CDI device 'thing' is not of the form"),
        ({"CDI_devices": [{"name": f"{THING}=network"}]}, "INVALID_ARGUMENT: a CDI device asks for intelRdt"),
    ],
)
async def test_devices_that_cannot_be_had(
    crid: Crid, busybox: str, specifications: Path, fields: dict[str, Any], words: str
) -> None:
    describe(specifications, {"name": "network", "containerEdits": {"intelRdt": {"closID": "x"}}})
    sandbox = await run_pod(crid, "")
    with pytest.raises(CriError) as failure:
        await crid.create(sandbox, busybox, ["true"], **fields)
    assert words in str(failure.value)
    assert not (await crid.cri.ListContainers(filter={"pod_sandbox_id": sandbox[0]})).containers
    await crid.cri.RemovePodSandbox(pod_sandbox_id=sandbox[0])


async def test_labels_and_the_pods_annotations_name_no_devices(
    crid: Crid, busybox: str, registry: Registry, specifications: Path
) -> None:
    """What an image or a pod says of itself has no power (CVE-2026-53492): only the container's request has."""
    describe(specifications, {"name": "one", "containerEdits": {"env": ["THING=one"]}})
    names = {"cdi.k8s.io/vendor": f"{THING}=one"}
    pushed = push_image(registry, "labelled:1", [busybox_rootfs()], {"Cmd": ["sh"], "Labels": names})
    await crid.cri.PullImage(image={"image": pushed.ref})
    config = crid.pod_config(annotations=names, labels={"cdi.k8s.io": "x"})
    sandbox = (await crid.cri.RunPodSandbox(config=config)).pod_sandbox_id, config
    await crid.ended(await crid.run(sandbox, pushed.ref, ["sh", "-c", "echo [$THING]"], labels=names))
    assert crid.log_of(config) == "[]"
    await crid.cri.RemovePodSandbox(pod_sandbox_id=sandbox[0])


async def test_an_nri_plugin_gives_devices_too(crid: Crid, busybox: str, handler: str, specifications: Path) -> None:
    node = {"path": "/dev/thing", "hostPath": "/dev/loop-control", "permissions": "r"}
    describe(specifications, {"name": "one", "containerEdits": {"deviceNodes": [node], "env": ["THING=one"]}})
    async with NriPlugin(crid, "10") as plugin:
        plugin.script(adjust={"main": {"CDIDevices": [{"name": f"{THING}=one"}]}})
        sandbox = await run_pod(crid, handler)
        script = "echo $THING; stat -c '%t:%T' /dev/thing; (: < /dev/thing) && echo readable; (: > /dev/thing) 2>&1"
        await crid.ended(await crid.run(sandbox, busybox, ["sh", "-c", script]))
        lines = crid.log_of(sandbox[1]).splitlines()
        assert lines[:3] == ["one", "a:ed", "readable"] and "not permitted" in lines[3]
        plugin.script(adjust={"main": {"CDIDevices": [{"name": f"{THING}=absent"}]}})
        with pytest.raises(CriError) as failure:
            await crid.create(sandbox, busybox, ["true"], metadata={"name": "main", "attempt": 1})
        assert "NRI plugin 10-test adjusts CdiDevices of container " in str(failure.value)
        assert f"CDI devices not found: {THING}=absent; searched the specification files in" in str(failure.value)
        await crid.cri.RemovePodSandbox(pod_sandbox_id=sandbox[0])
