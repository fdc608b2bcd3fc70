"""NRI as the operator sets it up: installed plugins, the default validator, other sockets; and crid's restarts."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from cri.client import CriError
from tests.support import peers
from tests.support.crid import Crid, running_crid
from tests.support.images import busybox_rootfs, push_image
from tests.support.nri import NriPlugin
from tests.support.registry import Registry

SLEEP = ["sleep", "1000"]


@asynccontextmanager
async def configured(registry: Registry, settings: str) -> AsyncIterator[tuple[Crid, str]]:
    """A crid with settings, and an image."""
    async with running_crid(settings=settings) as crid:
        crid.trust_plain_http(registry.host)
        pushed = push_image(registry, "configured:1", [busybox_rootfs()], {"Cmd": ["sh"]})
        await crid.cri.PullImage(image={"image": pushed.ref})
        yield crid, pushed.ref


def told(plugin: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(f"{plugin}.log").read_text().splitlines()]


async def test_an_installed_plugin_is_started_with_its_configuration_and_ends_with_crid(
    registry: Registry, tmp_path: Path
) -> None:
    plugin = tmp_path / "plugins" / "07-installed"
    for directory in ("plugins", "conf.d"):
        (tmp_path / directory).mkdir()
    shutil.copy(peers.require("nri-plugin"), plugin)
    (tmp_path / "conf.d" / "installed.conf").write_text("from a file")
    shutil.copy("/bin/false", tmp_path / "plugins" / "08-broken")
    settings = f"nri.plugin_path = '{tmp_path}/plugins'\nnri.plugin_config_path = '{tmp_path}/conf.d'\n"
    async with configured(registry, settings + "nri.disable_connections = true") as (crid, image):
        [configure, synchronize] = told(plugin)
        assert configure["config"] == "from a file" and configure["runtime"] == "crid"
        assert synchronize["pods"] == []
        assert "NRI plugin 08-broken is not accepted" in crid.log.read_text()
        Path(f"{plugin}.script").write_text('{"adjust": {"main": {"env": [{"key": "A", "value": "installed"}]}}}')
        container = await crid.run(await crid.run_pod(), image, SLEEP)
        assert (await crid.exec(container, "sh", "-c", "echo $A"))[1] == "installed\n"
        assert not (crid.state / "nri.sock").exists()
        assert len(_processes(plugin)) == 1
        await crid.terminate()
        assert not _processes(plugin)
        await crid.start()
        assert told(plugin)[-1]["containers"] == [container]
        crid.kill()
        await crid.start()
        assert len(_processes(plugin)) == 1, "the plugin of the killed crid is still there"


async def test_a_plugin_that_ignores_the_end_of_its_connection_dies_with_crid(
    registry: Registry, tmp_path: Path
) -> None:
    plugins, sleep = tmp_path / "plugins", tmp_path / "sleep"
    plugins.mkdir()
    shutil.copy("/bin/sleep", sleep)
    plugin = plugins / "09-stubborn"
    plugin.write_text(f"#!/bin/sh\ntrap '' TERM PIPE\nexec {sleep} 1000\n")
    plugin.chmod(0o755)
    settings = f"nri.plugin_path = '{plugins}'\nnri.plugin_registration_timeout = 0.3\n"
    async with configured(registry, settings) as (crid, _):
        assert len(_processes(sleep)) == 1
        crid.kill()
        async with asyncio.timeout(5):
            while _processes(sleep):  # noqa: ASYNC110 - the kernel is asked
                await asyncio.sleep(0.02)
        plugin.unlink()


def _processes(program: Path) -> list[str]:
    found = []
    for entry in Path("/proc").glob("[0-9]*/exe"):
        try:
            if entry.readlink() == program:
                found.append(entry.parent.name)
        except OSError:
            continue  # it ended meanwhile, or is a kernel thread
    return found


async def test_a_file_that_is_no_plugin_is_named(registry: Registry, tmp_path: Path) -> None:
    async with configured(registry, f"nri.plugin_path = '{tmp_path}'") as (crid, _):
        stray = tmp_path / "stray"
        shutil.copy("/bin/true", stray)
        await crid.terminate()
        crid.spawn()
        await crid.died()
        assert f"{stray}: an NRI plugin is named NN-NAME" in crid.tail()
        stray.unlink()
        await crid.start()


async def test_the_default_validator_is_asked_before_anything_is_made(registry: Registry) -> None:
    settings = (
        "nri.default_validator = { enable = true, reject_namespace_adjustment = true, "
        "required_plugins = ['test'], tolerate_missing_plugins_annotation = 'tolerate' }"
    )
    async with configured(registry, settings) as (crid, image):
        pod = await crid.run_pod()
        with pytest.raises(CriError, match="required plugins test are not present"):
            await crid.create(pod, image, SLEEP)
        tolerant = await crid.run_pod(annotations={"tolerate": "true"})
        await crid.create(tolerant, image, SLEEP)
        async with NriPlugin(crid, "10") as plugin:
            await crid.create(pod, image, SLEEP)
            plugin.script(adjust={"other": {"linux": {"namespaces": [{"type": "uts"}]}}})
            with pytest.raises(CriError, match=r"10-test .uts. attempted restricted namespace adjustment"):
                await crid.create(pod, image, SLEEP, name="other")


async def test_a_plugin_comes_back_to_a_crid_that_was_killed(registry: Registry) -> None:
    async with configured(registry, "") as (crid, image):
        pod = await crid.run_pod()
        async with NriPlugin(crid, "10") as plugin:
            plugin.script(adjust={"main": {"env": [{"key": "A", "value": "adjusted"}]}})
            created = await crid.create(pod, image, SLEEP)
            crid.kill()
            assert plugin.process is not None
            plugin.process.wait(10)
            await crid.start()
            plugin.start()
            assert (await plugin.until("Synchronize", 2))["containers"] == [created]
            await crid.cri.StartContainer(container_id=created)
            assert (await crid.exec(created, "sh", "-c", "echo $A"))[1] == "adjusted\n"
            await plugin.logged("is connected and synchronized")
            await crid.cri.RemovePodSandbox(pod_sandbox_id=pod[0])
            assert plugin.told(created)[-4:] == [
                "StartContainer",
                "PostStartContainer",
                "StopContainer",
                "RemoveContainer",
            ]


async def test_a_socket_of_another_runtime_is_left_alone(registry: Registry) -> None:
    async with running_crid() as first:
        async with configured(registry, f"nri.socket = '{first.state}/nri.sock'") as (second, image):
            assert "another process listens on" in second.log.read_text()
            await second.run(await second.run_pod(), image, SLEEP)
        async with NriPlugin(first, "10"):
            info = (await first.cri.Status(verbose=True)).info["nri"]
            assert json.loads(info) == {"socket": f"{first.state}/nri.sock", "trouble": "", "plugins": ["10-test"]}


async def test_nri_can_be_turned_off(registry: Registry) -> None:
    async with configured(registry, "nri.disable = true") as (crid, image):
        assert not (crid.state / "nri.sock").exists()
        await crid.run(await crid.run_pod(), image, SLEEP)


async def test_hooks_are_run_where_an_external_runtime_makes_the_container(registry: Registry, tmp_path: Path) -> None:
    if (runc := shutil.which("runc")) is None:
        pytest.skip("runc is not installed")
    hook, states = tmp_path / "hook", tmp_path / "states"
    hook.write_text(f"#!/bin/sh\ncat >> {states}\necho >> {states}\n")
    hook.chmod(0o755)
    async with configured(registry, f"runtimes.runc.path = '{runc}'") as (crid, image):
        answer = await crid.cri.RunPodSandbox(config=(config := crid.pod_config()), runtime_handler="runc")
        async with NriPlugin(crid, "10") as plugin:
            hooks = {"createRuntime": [{"path": str(hook)}], "poststop": [{"path": str(hook)}]}
            plugin.script(adjust={"main": {"hooks": hooks, "annotations": {"note": "from a plugin"}}})
            container = await crid.run((answer.pod_sandbox_id, config), image, SLEEP)
            await crid.cri.StopContainer(container_id=container)
            await crid.cri.RemoveContainer(container_id=container)
        created, stopped = map(json.loads, states.read_text().splitlines())
        assert created["id"] == stopped["id"] == container and created["annotations"]["note"] == "from a plugin"
        assert (created["status"], stopped["status"]) == ("creating", "stopped")


async def test_an_update_that_an_external_runtime_refuses_fails_alone_and_never_the_start(
    registry: Registry, tmp_path: Path
) -> None:
    if (runc := shutil.which("runc")) is None:
        pytest.skip("runc is not installed")
    refuses = tmp_path / "refuses"
    refuses.write_text(f'#!/bin/sh\nfor word; do [ "$word" != update ] || exit 1; done\nexec {runc} "$@"\n')
    refuses.chmod(0o755)
    (plugins := tmp_path / "plugins").mkdir()
    settings = f"runtimes.refuses.path = '{refuses}'\nnri.plugin_path = '{plugins}'\n"
    async with configured(registry, settings) as (crid, image):
        answer = await crid.cri.RunPodSandbox(config=(config := crid.pod_config()), runtime_handler="refuses")
        refused = await crid.run((answer.pod_sandbox_id, config), image, SLEEP)
        other = await crid.run(await crid.run_pod(), image, SLEEP)
        plugin = plugins / "20-limits"
        shutil.copy(peers.require("nri-plugin"), plugin)
        limits = {"linux": {"resources": {"cpu": {"shares": {"value": "200"}}}}}
        updates = [{"containerId": id, **limits} for id in (refused, other)]
        Path(f"{plugin}.script").write_text(json.dumps({"update": {"Synchronize": updates}}))
        await crid.terminate()
        await crid.start()
        assert (await crid.status(other)).resources.linux.cpu_shares == 200
        assert (await crid.status(refused)).resources.linux.cpu_shares != 200
        assert "is connected and synchronized" in crid.log.read_text()
