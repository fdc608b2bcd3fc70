"""What crid stands on gives way: full disks, an emptied state directory, a shim that hangs when crid comes back.

What can go on goes on, what cannot says why; containers can always be stopped, and their ends are told.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from cri.client import CriError
from cri.proto import api_pb2 as api
from nodeagent.fsck import fsck
from runtime.linux.ledger import Effect, Ledger
from tests.support.crid import Crid, running_crid
from tests.support.deaths import shim_of
from tests.support.nothing_left import nothing_is_left
from tests.support.processes import eventually
from tests.support.registry import Registry
from tests.support.restart_scene import sandbox_state, state_of

pytestmark = pytest.mark.asyncio(loop_scope="module")
SLEEP = ["sleep", "1000"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def daemon(registry: Registry) -> AsyncIterator[tuple[Crid, str]]:
    async with running_crid() as crid:
        yield crid, await crid.busybox(registry)


@pytest_asyncio.fixture(loop_scope="module")
async def crid(daemon: tuple[Crid, str]) -> AsyncIterator[Crid]:
    yield daemon[0]
    await daemon[0].clean()
    await nothing_is_left(daemon[0])


@pytest.fixture
def image(daemon: tuple[Crid, str]) -> str:
    return daemon[1]


@contextlib.contextmanager
def small_disk(directory: Path, megabytes: int) -> Iterator[None]:
    """`directory`, with what is in it, on a file system of its own, and back where it was afterwards."""
    beside = directory.with_name(f"{directory.name}.small")
    beside.mkdir(mode=0o700)
    _run("mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=700", "tmpfs", beside)
    try:
        _run("cp", "-a", f"{directory}/.", beside)
        _run("mount", "--bind", beside, directory)
        try:
            yield
        finally:
            _run("umount", "-l", directory)
            shutil.rmtree(directory)
            shutil.copytree(beside, directory, symlinks=True)
            directory.chmod(0o700)
    finally:
        _run("umount", "-l", beside)
        beside.rmdir()


def _run(*command: str | Path) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=30)


@contextlib.contextmanager
def full(directory: Path) -> Iterator[None]:
    """No byte more fits on its file system."""
    filling = directory / "filling"
    with filling.open("wb", buffering=0) as file:
        for size in (1 << 16, 1 << 12):
            with contextlib.suppress(OSError):
                while file.write(b"\0" * size) == size:
                    pass
    try:
        yield
    finally:
        filling.unlink(missing_ok=True)


async def kill(crid: Crid, id: str) -> None:
    await crid.cri.StopContainer(api.StopContainerRequest(container_id=id, timeout=0), timeout=15)


async def test_a_full_state_directory(crid: Crid, image: str) -> None:
    with small_disk(crid.state / "sandboxes", 2):
        pod = await crid.run_pod()
        id = await crid.run(pod, image, SLEEP)
        with full(crid.state / "sandboxes"):
            for refused in (crid.run_pod(), crid.run(pod, image, SLEEP, name="other")):
                with pytest.raises(CriError, match="No space left") as why:
                    await refused
                assert why.value.code == "RESOURCE_EXHAUSTED"
            assert await crid.exec(id, "echo", "well") == (0, "well\n", "")
            await kill(crid, id)
            assert await state_of(crid, id) == "137 Error"
            assert await sandbox_state(crid, pod[0]) == "ready"
        assert (await crid.ended(await crid.run(pod, image, ["true"], name="next"))).exit_code == 0
        await crid.clean()


async def test_a_full_root_directory_also_over_a_restart(crid: Crid, image: str) -> None:
    await crid.terminate()
    with small_disk(crid.root, 24):
        await crid.start()
        pod, other = await crid.run_pod(), await crid.run_pod()
        id, stays = await crid.run(pod, image, SLEEP), await crid.run(other, image, SLEEP)
        with full(crid.root):
            for refused in (crid.run_pod(), crid.create(pod, image, SLEEP, name="other")):
                with pytest.raises(CriError, match="free space on the file system") as why:
                    await refused
                assert why.value.code == "RESOURCE_EXHAUSTED"
            assert await crid.exec(id, "echo", "well") == (0, "well\n", "")
            await kill(crid, id)
            await crid.cri.StopPodSandbox(pod_sandbox_id=pod[0])
            assert await state_of(crid, id) == "137 Error"
            crid.kill()
            await crid.start()
            assert await sandbox_state(crid, pod[0]) == "notready"
            assert await state_of(crid, stays) == "running"
            assert await crid.exec(stays, "echo", "well") == (0, "well\n", "")
        await crid.clean()
        assert (await crid.ended(await crid.run(await crid.run_pod(), image, ["true"]))).exit_code == 0
        await crid.clean()
        await crid.terminate()
    await crid.start()


@pytest.mark.parametrize("restarted", [False, True])
async def test_an_emptied_state_directory(crid: Crid, image: str, restarted: bool) -> None:
    """Nothing can be begun in that pod any more; it is ended whole, with a shim that nobody can talk to any more."""
    pod = await crid.run_pod()
    id = await crid.run(pod, image, SLEEP)
    shim = await shim_of(crid, pod[0])
    shutil.rmtree(crid.state / "sandboxes" / pod[0], ignore_errors=True)  # what is mounted stays
    if restarted:
        crid.kill()
        await crid.start()
        assert await sandbox_state(crid, pod[0]) == "notready"
        assert await state_of(crid, id) == "lost"
    else:
        with pytest.raises(CriError):
            await crid.run(pod, image, SLEEP, name="other")
        assert await crid.exec(id, "echo", "well") == (0, "well\n", "")
        await kill(crid, id)
        assert await state_of(crid, id) == "137 Error"
    await crid.cri.RemovePodSandbox(pod_sandbox_id=pod[0])
    assert not alive(shim)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("how", ["delete", "flush"])
async def test_somebody_flushes_the_firewall(crid: Crid, image: str, how: str) -> None:
    """The next start of crid makes it whole again, host ports of pods that live included."""
    pod = await crid.run_pod(crid.pod_config(port_mappings=[{"container_port": 80, "host_port": 18080}]))
    table = f"nodeagent_{crid.bridge}"
    before = _firewall(table)
    assert any("18080" in line for line in before)
    _run("nft", how, "table", "inet", table)
    assert _firewall(table) != before
    crid.kill()
    await crid.start()
    assert _firewall(table) == before
    await crid.cri.RemovePodSandbox(pod_sandbox_id=pod[0])
    assert not any("18080" in line for line in _firewall(table))


def _firewall(table: str) -> list[str]:
    command = ["nft", "list", "table", "inet", table]
    return sorted(subprocess.run(command, capture_output=True, text=True, timeout=10).stdout.splitlines())


async def test_a_shim_that_hangs_when_crid_comes_back(crid: Crid, image: str) -> None:
    """It keeps the others waiting for a moment only; when it goes on, crid knows it again, and what happened."""
    hung, other = await crid.run_pod(), await crid.run_pod()
    forever = await crid.run(hung, image, SLEEP)
    ends = await crid.run(hung, image, ["sh", "-c", "sleep 0.5; exit 7"], name="ends")
    beside = await crid.run(other, image, SLEEP)
    shim = await shim_of(crid, hung[0])
    os.kill(shim, signal.SIGSTOP)
    try:
        crid.kill()
        started = time.monotonic()
        await crid.start()
        assert await crid.exec(beside, "echo", "well") == (0, "well\n", "")
        assert time.monotonic() - started < 9  # a call to a shim takes 10 s before it is given up
        assert await sandbox_state(crid, hung[0]) == "ready"
    finally:
        os.kill(shim, signal.SIGCONT)
    assert (await crid.ended(ends)).exit_code == 7
    assert await crid.exec(forever, "echo", "again") == (0, "again\n", "")


async def test_a_pod_ends_also_when_its_shim_hangs(crid: Crid, image: str) -> None:
    """Within the patience of a client, and with what is known of containers that had ended before."""
    stopped, removed = await crid.run_pod(), await crid.run_pod()
    ended = await crid.run(stopped, image, ["sh", "-c", "exit 7"], name="ended")
    await crid.ended(ended)
    forever, _ = await crid.run(stopped, image, SLEEP), await crid.run(removed, image, SLEEP)
    shims = [await shim_of(crid, pod[0]) for pod in (stopped, removed)]
    for shim in shims:
        os.kill(shim, signal.SIGSTOP)
    await asyncio.gather(
        crid.cri.StopPodSandbox(api.StopPodSandboxRequest(pod_sandbox_id=stopped[0]), timeout=20),
        crid.cri.RemovePodSandbox(api.RemovePodSandboxRequest(pod_sandbox_id=removed[0]), timeout=20),
    )
    assert not any(alive(shim) for shim in shims)
    assert [await state_of(crid, id) for id in (ended, forever)] == ["7 Error", "lost"]
    assert [await sandbox_state(crid, pod[0]) for pod in (stopped, removed)] == ["notready", "gone"]


async def test_somebody_locks_the_ledger(crid: Crid, image: str) -> None:
    """Nothing new can be begun, and crid says so at once; what runs goes on, and its end is told."""
    pod = await crid.run_pod()
    id = await crid.run(pod, image, SLEEP)
    with contextlib.closing(sqlite3.connect(crid.root / "ledger.db", isolation_level=None)) as shell:
        shell.execute("BEGIN IMMEDIATE")
        with pytest.raises(CriError, match=r"database is locked by another process; find it with `fuser .*") as why:
            await crid.cri.RunPodSandbox(api.RunPodSandboxRequest(config=crid.pod_config()), timeout=3)
        assert why.value.code == "UNAVAILABLE"
        assert not fsck(crid.root, crid.state)  # it reads, and needs no lock
        assert await crid.exec(id, "echo", "well") == (0, "well\n", "")
        await kill(crid, id)
        assert await state_of(crid, id) == "137 Error"
    assert (await crid.ended(await crid.run(await crid.run_pod(), image, ["true"]))).exit_code == 0


async def test_a_checkpoints_leftover_that_cannot_be_removed_keeps_nobody_waiting(crid: Crid, tmp_path: Path) -> None:
    (half := tmp_path / ".one.tar.1234").write_text("half")
    stuck = tmp_path / ("x" * 300)  # a path that no call takes, as those of a client's file system that is gone
    crid.kill()
    with contextlib.closing(Ledger(crid.root / "ledger.db", "crid")) as ledger:
        for path in (stuck, half):
            ledger.record(Effect("dir", str(path), f"checkpoint:{path.name}"))
        await crid.start()
        await eventually(lambda: not half.exists() and [entry.key for entry in ledger.entries("dir")] == [str(stuck)])
        assert f"{stuck}, left by a checkpoint, cannot be removed" in crid.log.read_text()
        ledger.strike(("dir", str(stuck)))
