"""More processes in a running container."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from runtime.client import NotFound, Pod, StartError
from runtime.linux.cgroups import Cgroup
from runtime.spec import ExecSpec
from tests.support.containers import Node, exec_output
from tests.support.processes import eventually


async def test_output_and_exit_code(node: Node, pod: Pod) -> None:
    spec = await node.idle(pod)
    assert await exec_output(pod, spec, "sh", "-c", "echo out; echo err >&2; exit 42") == (42, "out\nerr\n")
    assert await exec_output(pod, spec, "sh", "-c", "kill -9 $$") == (137, "")


async def test_it_is_in_the_containers_namespaces_cgroups_and_root(node: Node, pod: Pod) -> None:
    spec = await node.idle(pod)
    pid = (await pod.container_status(spec.id))["pid"]
    script = "for n in cgroup ipc mnt net pid uts; do readlink /proc/self/ns/$n; done; sed 's/.*://' /proc/self/cgroup"
    _, output = await exec_output(pod, spec, "sh", "-c", script)
    lines = output.splitlines()
    assert lines[:6] == [
        os.readlink(f"/proc/{pid}/ns/{kind}") for kind in ("cgroup", "ipc", "mnt", "net", "pid", "uts")
    ]
    assert set(lines[6:]) <= {"/", "/exec-1", "/../../..", *lines[6:]}
    assert any(line.startswith("/exec-") for line in lines[6:])


async def test_limits_of_the_container_hold_for_it(node: Node, pod: Pod) -> None:
    spec = await node.idle(pod, linux={"resources": {"pids": {"limit": 7}}})
    script = "for i in 1 2 3 4 5 6 7 8 9; do sleep 5 & done 2>&1; wait"
    code, output = await exec_output(pod, spec, "sh", "-c", script)
    assert code != 0 and "fork" in output


async def test_user_env_cwd_and_what_it_takes_from_the_container(node: Node, pod: Pod) -> None:
    (node.root / "work").mkdir()
    spec = await node.idle(pod, process={"env": ["PATH=/bin", "OWN=1"], "noNewPrivileges": True})
    script = "id -u; id -G; pwd; env; grep -E 'NoNewPrivs|CapBnd' /proc/self/status"
    user = {"uid": 12, "gid": 13, "additionalGids": [14]}
    _, output = await exec_output(pod, spec, "sh", "-c", script, user=user, cwd="/work")
    assert output.startswith("12\n13 14\n/work\n")
    assert "OWN=1" in output and "NoNewPrivs:\t1" in output
    _, output = await exec_output(pod, spec, "env", env=["PATH=/bin", "OTHER=2"])
    assert output == "PATH=/bin\nOTHER=2\n"


async def test_only_standard_fds(node: Node, pod: Pod) -> None:
    spec = await node.idle(pod)
    running = await pod.exec(spec.id, ExecSpec(id="e", args=["sleep", "100"]))
    assert sorted(os.listdir(f"/proc/{running.pid}/fd")) == ["0", "1", "2"]
    await running.kill()
    assert await running.wait() == 137


async def test_a_program_that_is_not_there(node: Node, pod: Pod) -> None:
    spec = await node.idle(pod)
    with pytest.raises(StartError, match=r'exec: "nothing": executable file not found in \$PATH'):
        await exec_output(pod, spec, "nothing")
    assert (await exec_output(pod, spec, "true"))[0] == 0


async def test_in_a_container_that_does_not_run(node: Node, pod: Pod) -> None:
    spec = node.container(pod, "true")
    with pytest.raises(NotFound):
        await exec_output(pod, spec, "true")
    await pod.start_container(spec)
    await node.exited(spec)
    with pytest.raises(NotFound, match="is not running"):
        await exec_output(pod, spec, "true")


async def test_kill_takes_all_that_it_has_started_and_nothing_else(node: Node, pod: Pod) -> None:
    spec = await node.idle(pod)
    script = "setsid setsid sleep 1001 & setsid sleep 1002 & while :; do sleep 1003; done"
    running = await pod.exec(spec.id, ExecSpec(id="e", args=["sh", "-c", script]))
    cgroup = Cgroup(spec.oci["linux"]["cgroupsPath"])
    await eventually(lambda: len({os.getsid(pid) for pid in cgroup.procs()}) >= 4)  # init, the shell and both setsid
    await running.kill()
    assert await running.wait() == 137
    assert cgroup.populated()
    await eventually(lambda: len(cgroup.procs()) == 1)
    assert (await pod.container_status(spec.id))["pid"] in cgroup.procs()


async def test_what_it_leaves_running_goes_with_the_container(node: Node, pod: Pod) -> None:
    spec = await node.idle(pod)
    code, _ = await exec_output(pod, spec, "sh", "-c", "setsid sleep 1000 > /dev/null 2>&1 &")
    assert code == 0
    await pod.kill(spec.id)
    assert (await node.exited(spec)).exit_code == 137
    await pod.remove_container(spec.id)
    assert not Cgroup(spec.oci["linux"]["cgroupsPath"]).exists()


async def test_it_ends_with_its_container(node: Node, pod: Pod) -> None:
    spec = await node.idle(pod)
    running = await pod.exec(spec.id, ExecSpec(id="e", args=["sleep", "1000"]))
    await pod.kill(spec.id)
    assert await running.wait() == 137
    assert (await node.exited(spec)).exit_code == 137


async def test_a_terminal(node: Node, pod: Pod) -> None:
    spec = await node.idle(pod)
    running = await pod.exec(spec.id, ExecSpec(id="e", args=["sh", "-c", "tty; read x; stty size"], tty=True))
    assert running.master is not None
    try:
        await running.resize(11, 222)
        os.write(running.master, b"\n")
        shown = b""
        while b"222" not in shown:
            shown += await asyncio.to_thread(os.read, running.master, 1000)
        assert b"/dev/pts/0" in shown and b"11 222" in shown
        assert await running.wait() == 0
        await running.resize(1, 1)
    finally:
        os.close(running.master)


async def test_many_at_once(node: Node, pod: Pod) -> None:
    spec = await node.idle(pod)
    results = await asyncio.gather(*[exec_output(pod, spec, "echo", str(number)) for number in range(30)])
    assert results == [(0, f"{number}\n") for number in range(30)]
    cgroup = Cgroup(spec.oci["linux"]["cgroupsPath"]).v2
    await eventually(lambda: not [name for name in os.listdir(cgroup) if name.startswith("exec-")])


async def test_cancelling_the_start_ends_it(node: Node, pod: Pod) -> None:
    spec = await node.idle(pod)
    task = asyncio.create_task(pod.exec(spec.id, ExecSpec(id="e", args=["sleep", "1000"])))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    cgroup = Cgroup(spec.oci["linux"]["cgroupsPath"])
    await eventually(lambda: len(cgroup.procs()) == 1)


async def test_execs_end_with_the_connection_of_their_caller(node: Node, pod: Pod) -> None:
    spec = await node.idle(pod)
    running = await pod.exec(spec.id, ExecSpec(id="e", args=["sleep", "1000"]))
    pod.disconnect()
    await eventually(lambda: not Path(f"/proc/{running.pid}").exists())
    node.pods[0] = await node.runtime.adopt(pod.id)
    assert (await node.pods[0].container_status(spec.id))["pid"]


async def test_signals_reach_it_as_in_a_shell(node: Node, pod: Pod) -> None:
    spec = await node.idle(pod)
    running = await pod.exec(spec.id, ExecSpec(id="e", args=["sleep", "1000"]))
    os.kill(running.pid, signal.SIGTERM)
    assert await running.wait() == 128 + signal.SIGTERM
