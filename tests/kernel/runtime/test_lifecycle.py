"""Exits, kills, restarts and deaths: what is told, what is on disk, what is left."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path

import pytest

from runtime.client import ContainerError, NotFound, Pod, Runtime, ShimLost, ShimLostEvent
from runtime.linux.cgroups import Cgroup, detect
from runtime.linux.failpoints import VARIABLE
from runtime.linux.mounttable import mounts_beneath
from runtime.linux.procs import Process
from tests.support.containers import Node, exec_output, logged
from tests.support.processes import children, eventually


def assert_gone(node: Node, pod: Pod) -> None:
    assert not pod.shim.alive()
    assert not mounts_beneath(pod.state_dir)
    assert not Cgroup(f"{node.parent}/{pod.id}").exists()
    assert not os.path.exists(f"{pod.state_dir}/shim.sock")


@pytest.mark.parametrize(("script", "code"), [("exit 0", 0), ("exit 3", 3), ("kill -15 $$; kill -9 $$", 137)])
async def test_exit_codes(node: Node, script: str, code: int) -> None:
    pod = await node.pod(pid="pod")  # as pid 1 it would not die of its own signal
    spec = node.container(pod, "sh", "-c", script.replace("kill -15 $$; ", ""))
    started = await pod.start_container(spec)
    event = await node.exited(spec)
    assert event.exit_code == code and not event.oom_killed
    assert event.finished_at >= started.started_at
    status = await pod.container_status(spec.id)
    assert (status["exit_code"], status["finished_at"]) == (code, event.finished_at)


async def test_the_exit_is_on_disk_when_it_is_told(node: Node, pod: Pod) -> None:
    spec = node.container(pod, "sh", "-c", "exit 5")
    await pod.start_container(spec)
    await node.exited(spec)
    assert json.loads(Path(pod.state_dir, "containers", f"{spec.id}.json").read_text())["exit_code"] == 5
    await pod.remove_container(spec.id)
    assert not os.listdir(f"{pod.state_dir}/containers")


async def test_signals(node: Node, pod: Pod) -> None:
    spec = node.container(pod, "sh", "-c", "trap 'echo got; exit 9' TERM; echo ready; while true; do sleep 0.1; done")
    await pod.start_container(spec)
    await eventually(lambda: logged(spec))
    await pod.signal(spec.id, signal.SIGTERM)
    assert (await node.exited(spec)).exit_code == 9
    with pytest.raises(NotFound):
        await pod.signal(spec.id, signal.SIGTERM)
    await pod.kill(spec.id)
    await pod.kill("never-was")


async def test_out_of_memory(node: Node, pod: Pod) -> None:
    limit = {"resources": {"memory": {"limit": 16 << 20, "swap": 16 << 20}}}
    spec = node.container(pod, "sh", "-c", "x=a; while true; do x=$x$x; done", linux=limit)
    await pod.start_container(spec)
    event = await node.exited(spec)
    assert event.exit_code == 137 and event.oom_killed
    assert pod.shim.alive()  # CVE-2019-14891: the monitor must not be in the container's cgroup


async def test_removing_a_running_container_kills_it(node: Node, pod: Pod) -> None:
    spec = await node.idle(pod)
    await asyncio.gather(*[pod.remove_container(spec.id) for _ in range(3)])
    assert not Cgroup(spec.oci["linux"]["cgroupsPath"]).exists()
    assert (await node.exited(spec)).exit_code == 137
    with pytest.raises(NotFound):
        await pod.container_status(spec.id)
    await pod.remove_container(spec.id)


async def test_removing_a_container_whose_cgroup_is_busy_holds_up_nobody(node: Node, pod: Pod) -> None:
    layout = detect()
    if "memory" not in layout.v1:
        pytest.skip("this host has no cgroup v1 hierarchy, where cgroup.kill does not reach")
    spec, other = await node.idle(pod), await node.idle(pod)
    bystander = await asyncio.create_subprocess_exec("sleep", "100")
    try:
        Path(f"{layout.v1['memory']}{spec.oci['linux']['cgroupsPath']}/cgroup.procs").write_text(str(bystander.pid))
        removal = asyncio.create_task(pod.remove_container(spec.id))
        await node.exited(spec)
        assert (await pod.container_status(other.id))["pid"]
        assert not removal.done()
    finally:
        bystander.kill()
        await bystander.wait()
    await removal
    assert not Cgroup(spec.oci["linux"]["cgroupsPath"]).exists()


async def test_stop_ends_everything_and_can_be_repeated(node: Node, pod: Pod) -> None:
    specs = [await node.idle(pod) for _ in range(3)]
    await pod.stop()
    for spec in specs:
        assert (await node.exited(spec)).exit_code == 137
    await eventually(lambda: not pod.shim.alive())
    assert_gone(node, pod)
    await pod.stop()
    await node.runtime.destroy_lost(pod.id)


async def test_a_start_during_the_stop_leaves_nothing(node: Node, pod: Pod) -> None:
    starts = [pod.start_container(node.container(pod, "sleep", "1000")) for _ in range(5)]
    results = await asyncio.gather(*starts, pod.stop(), return_exceptions=True)
    assert all(result is None or isinstance(result, ContainerError | OSError) or result.pid for result in results)
    await eventually(lambda: not pod.shim.alive())
    assert_gone(node, pod)


async def test_crid_can_come_back(node: Node, pod: Pod) -> None:
    running, short = await node.idle(pod), node.container(pod, "sh", "-c", "sleep 0.2; exit 6")
    await pod.start_container(short)
    pod.disconnect()
    await node.runtime.close()
    await eventually(lambda: "exit_code" in Path(pod.state_dir, "containers", f"{short.id}.json").read_text())

    again = Runtime(node.state, on_event=node.on_event)
    await again.start()
    node.runtime = again
    node.pods = [await again.adopt(pod.id)]
    assert (await node.exited(short)).exit_code == 6
    assert node.pods[0].shim == pod.shim and node.pods[0].netns_path == pod.netns_path
    assert (await exec_output(node.pods[0], running, "echo", "still here")) == (0, "still here\n")


async def test_adopting_what_is_not_there(node: Node) -> None:
    with pytest.raises(ShimLost):
        await node.runtime.adopt("never-was")
    assert await node.runtime.destroy_lost("never-was") == []


async def test_kill_of_the_zygote_disturbs_nobody(node: Node, pod: Pod) -> None:
    spec = await node.idle(pod)
    zygote = node.runtime._zygote.pid
    assert zygote
    os.kill(zygote, signal.SIGKILL)
    for _ in range(2):  # the first has the spare shim; for the other a new zygote is started
        other = await node.pod()
        assert await node.sh(other, "echo fine") == "fine\n"
    assert (await exec_output(pod, spec, "true"))[0] == 0
    assert node.runtime._zygote.pid not in (None, zygote)


async def test_a_hanging_zygote_is_replaced(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.client.CREATE_SECONDS", 0.5)
    zygote = node.runtime._zygote.pid
    assert zygote
    await spare_shim(node)
    os.kill(zygote, signal.SIGSTOP)
    await node.pod()  # has the spare shim
    with pytest.raises(TimeoutError):
        await node.pod()
    await node.pod()


async def test_the_zygote_ends_with_crid(node: Node) -> None:
    zygote = Process.of(node.runtime._zygote.pid or 0)
    await node.runtime.close()
    assert not zygote.alive()


async def spare_shim(node: Node) -> Process:
    """The shim that waits for a pod, when its builder waits too."""
    zygote = node.runtime._zygote.pid or 0
    await eventually(lambda: children(zygote))
    [pid] = children(zygote)
    await eventually(lambda: children(pid))
    return Process.of(pid)


async def test_the_spare_shim_ends_with_crid(node: Node) -> None:
    spare = await spare_shim(node)
    builder = Process.of(children(spare.pid)[0])
    await node.runtime.close()
    await eventually(lambda: not spare.alive() and not builder.alive())


@pytest.mark.parametrize("victim", ["shim", "builder"])
async def test_a_spare_that_is_killed_is_replaced(node: Node, victim: str) -> None:
    spare = await spare_shim(node)
    os.kill(spare.pid if victim == "shim" else children(spare.pid)[0], signal.SIGKILL)
    await eventually(lambda: not spare.alive())
    pod = await node.pod()
    assert pod.shim != spare
    assert await node.sh(pod, "echo fine") == "fine\n"


async def test_a_pod_whose_first_shim_dies_keeps_what_its_caller_has_made(node: Node) -> None:
    spare = await spare_shim(node)
    os.kill(spare.pid, signal.SIGSTOP)
    spec = node.sandbox()
    files = Path(spec.state_dir, "etc")  # crid's, before the shim: the files of all containers' /etc
    files.mkdir()
    making = asyncio.create_task(node.runtime.create_sandbox(spec))
    await asyncio.sleep(0.1)
    os.kill(spare.pid, signal.SIGKILL)  # with the request in its hands
    node.pods.append(await making)
    assert node.pods[-1].shim != spare
    assert files.is_dir()


async def test_a_shim_that_cannot_be_its_pods_is_gone_also_without_a_listener(node: Node) -> None:
    spare = await spare_shim(node)
    os.kill(spare.pid, signal.SIGSTOP)
    spec = node.sandbox()
    making = asyncio.create_task(node.runtime.create_sandbox(spec))
    await asyncio.sleep(0.1)
    making.cancel()
    await asyncio.wait({making})
    os.rmdir(spec.state_dir)
    os.kill(spare.pid, signal.SIGCONT)
    await eventually(lambda: not spare.alive())


async def test_kill_of_the_shim_costs_its_pod_and_no_other(node: Node, pod: Pod) -> None:
    other = await node.pod()
    survivor = await node.idle(other)
    ended = node.container(pod, "sh", "-c", "exit 4")
    await pod.start_container(ended)
    await node.exited(ended)
    spec = await node.idle(pod)
    running = Process.of((await pod.container_status(spec.id))["pid"])
    os.kill(pod.shim.pid, signal.SIGKILL)
    async with asyncio.timeout(10):
        while await node.events.get() != ShimLostEvent(pod.id):
            pass
    await eventually(lambda: not running.alive())  # without anybody's help: it may be crid that is down
    with pytest.raises(ShimLost):
        await pod.start_container(node.container(pod, "true"))
    (known,) = await node.runtime.destroy_lost(pod.id)
    assert (known.container_id, known.exit_code) == (ended.id, 4)
    assert_gone(node, pod)
    assert (await exec_output(other, survivor, "true"))[0] == 0


async def test_a_hung_shim_is_ended_by_destroy_lost(node: Node, pod: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.pod.CALL_SECONDS", 0.3)
    spec = await node.idle(pod)
    os.kill(pod.shim.pid, signal.SIGSTOP)
    with pytest.raises(TimeoutError, match="did not answer 'signal'"):
        await pod.signal(spec.id, signal.SIGTERM)
    await node.runtime.destroy_lost(pod.id)
    assert_gone(node, pod)


async def test_no_shim_is_left_as_a_zombie(node: Node, pod: Pod) -> None:
    shim = pod.shim
    await pod.stop()
    await eventually(lambda: not Path(f"/proc/{shim.pid}").exists())


SHIM_FAILPOINTS = [
    "shim.create.before_namespaces",
    "shim.create.after_namespaces",
    "shim.start.before_clone",
    "init.before_mounts",
    "init.before_execve",
    "shim.exit.after_write",
]


@pytest.mark.parametrize("action", ["error", "kill"])
@pytest.mark.parametrize("name", SHIM_FAILPOINTS)
async def test_a_failure_at_any_step_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, action: str
) -> None:
    monkeypatch.setenv(VARIABLE, f"{name}={action}")
    node = Node(tmp_path, tmp_path / "state")
    await node.runtime.start()
    try:
        with pytest.raises((ContainerError, TimeoutError)):
            async with asyncio.timeout(10):
                pod = await node.pod()
                spec = await node.idle(pod)
                await pod.kill(spec.id)
                await node.exited(spec)
    finally:
        for pod in node.pods:
            await node.runtime.destroy_lost(pod.id)
            pod.disconnect()
            assert_gone(node, pod)
        node.pods = []
        await node.cleanup()
    assert not mounts_beneath(str(tmp_path))
    assert not Cgroup(node.parent).exists()
