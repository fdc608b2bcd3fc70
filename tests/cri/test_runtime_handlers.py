"""RuntimeClass handlers: pods whose containers Debian's runc and crun make, and a current runc; and handlers that lie.

What is asserted is the same for each of them, and the same that the built-in runtime does.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from cri.client import CriError
from cri.proto import api_pb2 as api
from cri.streaming_client import exec_session
from images.build import regular
from runtime.linux.cgroups import Cgroup
from tests.support import peers
from tests.support.crid import Crid, Sandbox, running_crid
from tests.support.images import busybox_rootfs, push_image
from tests.support.processes import eventually
from tests.support.registry import Registry

pytestmark = pytest.mark.timeout(900)  # the first run builds a runc
RUNTIMES = ["runc", "crun", "runc-new"]
LIARS = {
    "hangs": "exec sleep 1000",
    "babbles": 'echo "no JSON \\001 at all" > "$4"; exit 3',
    "nests": 'head -c 8000 /dev/zero | tr "\\0" "[" > "${4:-/dev/stdout}"; test "$1" = features || exit 3',
    "lies": "exit 0",
    "dies": "kill -9 $$",
}
MEBIBYTE = 1 << 20
EVER = ["sh", "-c", "trap 'echo stopped; exit 3' TERM; echo ready; while :; do sleep 0.05; done"]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def crid(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Crid]:
    """A daemon with all handlers; whether an external program is there is for the single test to ask."""
    programs = tmp_path_factory.mktemp("liars")
    lines = ['runtimes.runc.path = "/usr/sbin/runc"', 'runtimes.crun.path = "/usr/bin/crun"']
    for name, script in LIARS.items():
        program = programs / name
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        lines.append(f'runtimes.{name}.path = "{program}"')
    lines += [f'runtimes.runc-new.path = "{programs}/runc-new"', 'runtimes.absent.path = "/nowhere/runtime"']
    lines.append('runtimes.runc.pod_annotations = ["vendor.example/*"]')
    async with running_crid(settings="\n".join(lines)) as started:
        started.trust_plain_http(registry.host)
        started.new_runc = programs / "runc-new"  # type: ignore[attr-defined]
        yield started


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def busybox(crid: Crid, registry: Registry) -> str:
    pushed = push_image(registry, "handled:1", [busybox_rootfs()], {"Cmd": ["sh"], "Env": ["FROM=image"]})
    await crid.cri.PullImage(image={"image": pushed.ref})
    return pushed.ref


@pytest.fixture(params=RUNTIMES)
def runtime(request: pytest.FixtureRequest, crid: Crid) -> str:
    name = str(request.param)
    if name == "runc-new":
        place: Path = crid.new_runc  # type: ignore[attr-defined]
        if not place.exists():
            shutil.copy(peers.require("runc"), place)
    elif shutil.which(name) is None:
        pytest.skip(f"{name} is not installed (Debian: {name})")
    return name


async def run_pod(crid: Crid, handler: str, **fields: object) -> Sandbox:
    config = crid.pod_config(**fields)
    request = api.RunPodSandboxRequest(config=config, runtime_handler=handler)
    return (await crid.cri.RunPodSandbox(request)).pod_sandbox_id, config


async def remove(crid: Crid, sandbox: Sandbox) -> None:
    await crid.cri.RemovePodSandbox(pod_sandbox_id=sandbox[0])


async def pids(crid: Crid, sandbox: Sandbox, container: str) -> tuple[int, int]:
    """Of the container's first process, and of the shim."""
    pod = (await crid.cri.PodSandboxStatus(pod_sandbox_id=sandbox[0], verbose=True)).info["info"]
    own = (await crid.cri.ContainerStatus(container_id=container, verbose=True)).info["info"]
    return int(json.loads(own)["pid"]), int(json.loads(pod)["pid"])


async def test_the_life_of_a_container(crid: Crid, busybox: str, runtime: str) -> None:
    sandbox = await run_pod(crid, runtime, hostname="handled")
    status = (await crid.cri.PodSandboxStatus(pod_sandbox_id=sandbox[0])).status
    assert status.runtime_handler == runtime
    id = await crid.run(
        sandbox, busybox, ["sh", "-c", "hostname; echo $FROM; echo bad >&2; exit 7"], linux=limits(32 * MEBIBYTE)
    )
    ended = await crid.ended(id)
    assert (ended.exit_code, ended.reason) == (7, "Error")
    assert crid.log_of(sandbox[1]).splitlines() == ["handled", "image", "bad"]
    await remove(crid, sandbox)
    assert not (crid.state / "sandboxes" / sandbox[0]).exists()
    assert crid.base.name not in "".join(
        line for line in Path("/proc/self/mountinfo").read_text().splitlines() if f"/{sandbox[0]}/" in line
    )


def limits(memory: int) -> dict[str, object]:
    return {"resources": {"memory_limit_in_bytes": memory, "cpu_shares": 512}}


async def test_limits_exec_update_and_stop(crid: Crid, busybox: str, runtime: str) -> None:
    sandbox = await run_pod(crid, runtime)
    id = await crid.run(sandbox, busybox, EVER, linux=limits(32 * MEBIBYTE))
    pid, shim = await pids(crid, sandbox, id)
    assert int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]) == shim
    cgroup = Cgroup(f"/{crid.bridge}/pod{sandbox[1].metadata.uid}/{id}")
    assert memory_limit(cgroup) == 32 * MEBIBYTE
    assert all(str(pid) in Path(each, "cgroup.procs").read_text().split() for each in cgroup.directories)
    assert await crid.exec(id, "sh", "-c", "echo out; echo err >&2; exit 5") == (5, "out\n", "err\n")
    assert [(await crid.exec(id, "true"))[0] for _ in range(3)] == [0, 0, 0]
    with pytest.raises(CriError, match=r"nosuchprogram"):
        await crid.exec(id, "nosuchprogram")
    stats = (await crid.cri.ContainerStats(container_id=id)).stats
    assert stats.cpu.usage_core_nano_seconds.value > 0 and stats.memory.working_set_bytes.value > 0
    await crid.cri.UpdateContainerResources(container_id=id, linux={"memory_limit_in_bytes": 48 * MEBIBYTE})
    assert memory_limit(cgroup) == 48 * MEBIBYTE
    await crid.cri.UpdateContainerResources(container_id=id, linux={"oom_score_adj": 789})
    until = "until [ $(cat /proc/$$/oom_score_adj) = 789 ]; do sleep 0.01; done"  # it runs before we have its pid
    assert (await crid.exec(id, "sh", "-c", until, timeout=5))[0] == 0
    await crid.cri.StopContainer(api.StopContainerRequest(container_id=id, timeout=10))
    assert (await crid.status(id)).exit_code == 3
    assert crid.log_of(sandbox[1]).splitlines()[-1] == "stopped"
    await remove(crid, sandbox)
    assert not cgroup.exists()


def memory_limit(cgroup: Cgroup) -> int:
    file = "memory.max" if cgroup.layout.version("memory") == 2 else "memory.limit_in_bytes"
    return int(Path(cgroup.directory("memory"), file).read_text())


async def test_rights(crid: Crid, busybox: str, runtime: str) -> None:
    security = {
        "run_as_user": {"value": 1234},
        "run_as_group": {"value": 77},
        "supplemental_groups": [5000],
        "capabilities": {"drop_capabilities": ["ALL"], "add_capabilities": ["NET_BIND_SERVICE"]},
        "seccomp": {"profile_type": "RuntimeDefault"},
        "no_new_privs": True,
        "readonly_rootfs": True,
        "namespace_options": {"pid": "CONTAINER"},
    }
    script = (
        "id -u; id -g; id -G; grep -E 'CapBnd|Seccomp:|NoNewPrivs' /proc/self/status | cut -f2; touch /x 2>&1;"
        "wc -c < /proc/timer_list; ls -l /dev/null | cut -c1; echo $$; ls /proc/self/fd"
    )
    sandbox = await run_pod(crid, runtime, linux={"security_context": {"namespace_options": {"pid": "CONTAINER"}}})
    await crid.ended(await crid.run(sandbox, busybox, ["sh", "-c", script], linux={"security_context": security}))
    lines = crid.log_of(sandbox[1]).splitlines()
    assert lines[:6] == ["1234", "77", "77 5000", f"{1 << 10:016x}", "1", "2"]
    assert "Read-only file system" in lines[6] and lines[7:10] == ["0", "c", "1"]
    assert lines[10:] == ["0", "1", "2", "3"]  # 3 is the directory itself
    await remove(crid, sandbox)


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Path]:
    """A file system whose mounts reach those who share it."""
    subprocess.run(["mount", "-t", "tmpfs", "shared", tmp_path], check=True)
    try:
        subprocess.run(["mount", "--make-shared", tmp_path], check=True)
        (tmp_path / "there").mkdir()
        yield tmp_path
    finally:
        subprocess.run(["umount", "--recursive", tmp_path], check=True)


async def test_volumes(crid: Crid, busybox: str, runtime: str, registry: Registry, shared: Path) -> None:
    layers = [[regular("a", b"first")], [regular("b", b"second")]]
    pushed = push_image(registry, "volume:1", layers, {})
    await crid.cri.PullImage(image={"image": pushed.ref})
    privileged = {"security_context": {"privileged": True}}
    sandbox = await run_pod(crid, runtime, linux=privileged)
    locked = {"readonly": True, "recursive_read_only": True}
    mounts = [
        {"container_path": "/v", "image": {"image": pushed.ref}},
        {"container_path": "/h", "host_path": str(shared), "propagation": "PROPAGATION_BIDIRECTIONAL"},
        {"container_path": "/r", "host_path": str(shared), **locked},
    ]
    script = "cat /v/a /v/b; mount -t tmpfs inner /h/there; touch /h/there/x; touch /r/y 2>&1 | grep -c Read-only"
    id = await crid.run(sandbox, busybox, ["sh", "-c", script], mounts=mounts, linux=privileged)
    assert (await crid.ended(id)).exit_code == 0
    assert crid.log_of(sandbox[1]).splitlines()[0] == "firstsecond1"
    assert (shared / "there/x").exists()
    await remove(crid, sandbox)


async def test_terminals(crid: Crid, busybox: str, runtime: str) -> None:
    sandbox = await run_pod(crid, runtime)
    id = await crid.run(sandbox, busybox, ["sh", "-c", "test -t 1 && echo tty; sleep 1000"], tty=True, stdin=True)
    await logged(crid, sandbox, "tty")

    async def sizes() -> AsyncIterator[tuple[int, int]]:
        yield 31, 97
        await asyncio.sleep(60)

    command = ["sh", "-c", "until stty size | grep 31; do sleep 0.05; done; exit 4"]
    url = (await crid.cri.Exec(container_id=id, cmd=command, stdout=True, tty=True, stdin=True)).url
    out, given = os.memfd_create("out"), os.open("/dev/null", os.O_RDONLY)
    try:
        assert await exec_session(url, stdin=given, stdout=out, stderr=out, sizes=sizes()) == 4
        assert b"31 97" in os.pread(out, 4096, 0)
    finally:
        os.close(out)
        os.close(given)
    await remove(crid, sandbox)


async def logged(crid: Crid, sandbox: Sandbox, words: str) -> None:
    await eventually(lambda: words in crid.log_of(sandbox[1]))


async def test_out_of_memory(crid: Crid, busybox: str, runtime: str) -> None:
    sandbox = await run_pod(crid, runtime)
    hog = ["sh", "-c", "exec dd if=/dev/zero of=/dev/null bs=200M count=1"]
    linux = {"resources": {"memory_limit_in_bytes": 24 * MEBIBYTE, "memory_swap_limit_in_bytes": 24 * MEBIBYTE}}
    ended = await crid.ended(await crid.run(sandbox, busybox, hog, linux=linux))
    assert (ended.reason, ended.exit_code) == ("OOMKilled", 137)
    await remove(crid, sandbox)


async def test_an_exec_that_runs_out_of_time_takes_its_children_along(crid: Crid, busybox: str, runtime: str) -> None:
    sandbox = await run_pod(crid, runtime)
    id = await crid.run(sandbox, busybox, EVER)
    with pytest.raises(CriError, match="timed out"):
        await crid.exec(id, "sh", "-c", "sleep 4321 & sleep 4321", timeout=1)
    cgroup = Cgroup(f"/{crid.bridge}/pod{sandbox[1].metadata.uid}/{id}")
    await eventually(lambda: not any("4321" in command_line(pid) for pid in cgroup.procs()))
    await remove(crid, sandbox)


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


async def test_restart_of_crid_and_loss_of_the_shim(crid: Crid, busybox: str, runtime: str) -> None:
    sandbox = await run_pod(crid, runtime)
    short = await crid.run(sandbox, busybox, ["sh", "-c", "until [ -e /dev/shm/go ]; do sleep 0.05; done; exit 9"])
    id = await crid.run(sandbox, busybox, EVER, name="long")
    crid.kill()
    (crid.state / "sandboxes" / sandbox[0] / "shm" / "go").touch()
    await crid.start()
    assert (await crid.ended(short)).exit_code == 9
    assert (await crid.exec(id, "sh", "-c", "exit 6"))[0] == 6
    pid, shim = await pids(crid, sandbox, id)
    os.kill(shim, signal.SIGKILL)
    assert (await crid.ended(id)).exit_code == 255
    await remove(crid, sandbox)
    assert not Path(f"/proc/{pid}").exists() or Path(f"/proc/{pid}/stat").read_text().split(")")[1][1] == "Z"
    assert not Cgroup(f"/{crid.bridge}/pod{sandbox[1].metadata.uid}").exists()
    assert not (crid.state / "sandboxes" / sandbox[0]).exists()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("babbles", "babbles create ended with exit status 3: no JSON   at all"),
        ("nests", "nests create ended with exit status 3: [[[["),
        ("lies", "lies create reported success, but"),
        ("dies", "dies create was killed by signal 9; it has logged nothing"),
    ],
)
async def test_a_runtime_that_fails(crid: Crid, busybox: str, name: str, words: str) -> None:
    sandbox = await run_pod(crid, name)
    with pytest.raises(CriError) as failure:
        await crid.run(sandbox, busybox, EVER)
    assert words in str(failure.value)
    [container] = (await crid.cri.ListContainers(filter={"pod_sandbox_id": sandbox[0]})).containers
    status = await crid.status(container.id)
    assert (status.reason, words in status.message) == ("StartError", True)
    assert not Cgroup(f"/{crid.bridge}/pod{sandbox[1].metadata.uid}/{container.id}").exists()
    assert not list((crid.state / "sandboxes" / sandbox[0] / "oci").iterdir())
    await remove(crid, sandbox)


async def test_a_runtime_that_hangs_ends_with_its_pod(crid: Crid, busybox: str) -> None:
    sandbox = await run_pod(crid, "hangs")
    id = await crid.create(sandbox, busybox, EVER)
    starting = asyncio.create_task(crid.cri.StartContainer(container_id=id))
    cgroup = Cgroup(f"/{crid.bridge}/pod{sandbox[1].metadata.uid}/{id}")
    await eventually(lambda: cgroup.exists() and bool(cgroup.procs() or not cgroup.layout.v1))
    await crid.cri.StopPodSandbox(pod_sandbox_id=sandbox[0])
    with pytest.raises(CriError, match="hangs create was"):
        await starting
    await remove(crid, sandbox)
    assert not cgroup.exists()


async def test_handlers_are_told(crid: Crid, runtime: str) -> None:
    status = await crid.cri.Status()
    features = {handler.name: handler.features for handler in status.runtime_handlers}
    assert {"", "crid", runtime} <= features.keys() and "absent" not in features
    assert features[runtime].recursive_read_only_mounts == (runtime != "crun")  # 1.8 does not know `features`
    [condition] = [each for each in status.status.conditions if each.type == "RuntimeHandlersReady"]
    assert not condition.status and "absent: /nowhere/runtime is no program of this host" in condition.message
    with pytest.raises(CriError, match=r"INVALID_ARGUMENT.*no runtime handler 'wasm'.*there are crid, runc"):
        await run_pod(crid, "wasm")
    with pytest.raises(CriError, match=r"FAILED_PRECONDITION.*absent: /nowhere/runtime is no program"):
        await run_pod(crid, "absent")


async def test_only_listed_annotations_reach_the_runtime(crid: Crid, busybox: str) -> None:
    if shutil.which("runc") is None:
        pytest.skip("runc is not installed (Debian: runc)")
    sandbox = await run_pod(crid, "runc", annotations={"vendor.example/speed": "9", "other.example/run": "/bin/sh"})
    id = await crid.run(sandbox, busybox, EVER)
    config = json.loads((crid.state / "sandboxes" / sandbox[0] / "oci" / id / "config.json").read_text())
    assert config["annotations"] == {"vendor.example/speed": "9"}
    await remove(crid, sandbox)
