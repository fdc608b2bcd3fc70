"""Deaths in the middle of a checkpoint and of a restore: the container goes on, and no half of anything is left."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import pytest_asyncio

from cri.client import CriError
from cri.proto import api_pb2 as api
from cri.server.checkpoint import revive, take
from runtime.linux.cgroups import Cgroup
from tests.support import criu
from tests.support.crid import Crid, Sandbox, running_crid
from tests.support.nothing_left import fsck_is_silent, nothing_is_left
from tests.support.processes import eventually
from tests.support.registry import Registry

pytestmark = pytest.mark.asyncio(loop_scope="module")
COUNT = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.05; done"
LINUX = {"security_context": {"namespace_options": {"pid": api.CONTAINER}}}
#: criu, but what the file `before` says, a shell's words, comes first, once.
WRAPPER = """#!/bin/sh
cd {directory}
if [ "$1" = swrk ] && mv before now 2>/dev/null; then . ./now; fi
exec {criu} "$@"
"""


class Wrapped:
    """A criu that can be told to do something before it works."""

    def __init__(self, directory: Path, program: str) -> None:
        self.directory = directory
        self.program = directory / "criu"
        real = shutil.copy(program, directory / "real")
        self.program.write_text(WRAPPER.format(directory=directory, criu=real))
        self.program.chmod(0o755)

    def once(self, script: str) -> None:
        (self.directory / "before").write_text(script)


@pytest.fixture(scope="module")
def wrapped() -> Iterator[Wrapped]:
    # Not below /tmp, which criu does not see when it restores.
    with TemporaryDirectory(prefix="na-criu-", dir="/var/tmp") as directory:
        yield Wrapped(Path(directory), criu.require())


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def daemon(wrapped: Wrapped, registry: Registry) -> AsyncIterator[tuple[Crid, str]]:
    async with running_crid(settings=f'checkpoint.criu = "{wrapped.program}"\n') as crid:
        yield crid, await crid.busybox(registry)


@pytest_asyncio.fixture(loop_scope="module")
async def crid(daemon: tuple[Crid, str]) -> AsyncIterator[Crid]:
    yield daemon[0]
    await daemon[0].clean()
    await nothing_is_left(daemon[0])
    assert not list((daemon[0].root / "checkpoints").iterdir())


async def counting(crid: Crid, image: str) -> tuple[Sandbox, str]:
    pod = await crid.run_pod(linux=LINUX)
    id = await crid.run(pod, image, ["sh", "-c", COUNT])
    await goes_on(crid, pod)
    return pod, id


async def goes_on(crid: Crid, pod: Sandbox) -> None:
    before = crid.log_of(pod[1])
    for _ in range(200):
        await asyncio.sleep(0.02)
        if crid.log_of(pod[1]) != before:
            return
    raise AssertionError(f"it does not go on: {before[-20:]!r}\n{crid.tail()}")


async def checkpoint(crid: Crid, id: str, name: str = "one") -> Path:
    location = crid.base / f"{name}.tar"
    request = api.CheckpointContainerRequest(container_id=id, location=str(location), timeout=30)
    await crid.cri.CheckpointContainer(request, timeout=60)
    return location


def archives(crid: Crid) -> list[str]:
    """Whole ones and halves."""
    return sorted(path.name for path in crid.base.glob("*.tar*")) + [path.name for path in crid.base.glob(".*.tar*")]


@pytest.mark.parametrize("step", take.FAILPOINTS)
async def test_crid_is_killed_at_a_step_of_a_dump(crid: Crid, daemon: tuple[Crid, str], step: str) -> None:
    crid.kill()
    await crid.start(f"{step}=kill")
    pod, id = await counting(crid, daemon[1])
    with pytest.raises(CriError):
        await checkpoint(crid, id)
    await goes_on(crid, pod)
    await crid.died()
    await crid.start()
    whole = ["one.tar"] if step == "crid.checkpoint.written" else []
    await eventually(lambda: archives(crid) == whole)
    Path(crid.base, "one.tar").unlink(missing_ok=True)
    assert (await crid.status(id)).state == api.CONTAINER_RUNNING
    await fsck_is_silent(crid)


async def test_crid_is_killed_while_criu_works(crid: Crid, wrapped: Wrapped, daemon: tuple[Crid, str]) -> None:
    """The container stays paused until criu has ended, which was told that it is."""
    assert crid.process is not None
    pod, id = await counting(crid, daemon[1])
    cgroup = Cgroup(f"/{crid.bridge}/pod{pod[1].metadata.uid}/{id}")
    wrapped.once(f"kill -9 {crid.process.pid}; until [ -e go ]; do sleep 0.05; done; rm go")
    with pytest.raises(CriError):
        await checkpoint(crid, id)
    await crid.died()
    await crid.start()
    assert "frozen 1" in Path(cgroup.v2, "cgroup.events").read_text()
    (wrapped.directory / "go").touch()
    await goes_on(crid, pod)
    for milliseconds in (15, 30):  # and in the midst of it
        wrapped.once(f"( (sleep 0.0{milliseconds}; kill -9 {crid.process.pid}) & )")  # criu minds strange children
        try:
            await checkpoint(crid, id)
        except CriError:
            assert not archives(crid)
        await crid.died()
        await crid.start()
        await goes_on(crid, pod)
        (crid.base / "one.tar").unlink(missing_ok=True)
    assert (await crid.exec(id, "true"))[0] == 0
    await fsck_is_silent(crid)


@pytest.mark.parametrize("how", ["kill -9 $$", "exit 1"])
async def test_criu_dies(crid: Crid, wrapped: Wrapped, daemon: tuple[Crid, str], how: str) -> None:
    pod, id = await counting(crid, daemon[1])
    wrapped.once(how)
    try:
        await checkpoint(crid, id)
    except CriError as error:
        assert "criu ended without an answer" in str(error)
        assert not archives(crid)
    await goes_on(crid, pod)
    (crid.base / "one.tar").unlink(missing_ok=True)


@contextlib.contextmanager
def small_disk(place: Path) -> Iterator[Path]:
    place.mkdir(mode=0o700, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k,mode=700", "tmpfs", place], check=True, timeout=10)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True, timeout=10)


@pytest.mark.parametrize("what", ["images", "archive"])
async def test_a_full_disk(crid: Crid, daemon: tuple[Crid, str], tmp_path: Path, what: str) -> None:
    pod, id = await counting(crid, daemon[1])
    with small_disk(crid.root / "checkpoints" if what == "images" else tmp_path) as small:
        request = api.CheckpointContainerRequest(container_id=id, location=str(tmp_path / "one.tar"), timeout=30)
        with pytest.raises(CriError, match="no space left") as full:
            await crid.cri.CheckpointContainer(request, timeout=60)
        assert full.value.code == "RESOURCE_EXHAUSTED"
        assert not list(small.iterdir())
    await goes_on(crid, pod)


async def test_a_stop_and_a_removal_do_not_wait_for_a_dump(
    crid: Crid, wrapped: Wrapped, daemon: tuple[Crid, str]
) -> None:
    for call in ("StopContainer", "RemovePodSandbox"):
        pod, id = await counting(crid, daemon[1])
        wrapped.once("touch begun; exec sleep 100")
        dumping = asyncio.create_task(checkpoint(crid, id))
        await eventually((wrapped.directory / "begun").exists)
        (wrapped.directory / "begun").unlink()
        if call == "StopContainer":
            await crid.cri.StopContainer(api.StopContainerRequest(container_id=id, timeout=0), timeout=10)
            assert (await crid.status(id)).exit_code == 137
        await crid.cri.RemovePodSandbox(api.RemovePodSandboxRequest(pod_sandbox_id=pod[0]), timeout=20)
        with pytest.raises(CriError):
            await dumping
        assert not archives(crid)


@pytest.mark.parametrize("step", revive.FAILPOINTS)
async def test_crid_is_killed_at_a_step_of_a_restore(crid: Crid, daemon: tuple[Crid, str], step: str) -> None:
    """Before the handover nothing has run, and it can be started again; after it the container goes on."""
    archive = await checkpoint(crid, (await counting(crid, daemon[1]))[1])
    crid.kill()
    await crid.start(f"{step}=kill")
    pod = await crid.run_pod(linux=LINUX)
    id = await crid.create(pod, str(archive), [])
    with pytest.raises(CriError):
        await crid.cri.StartContainer(container_id=id)
    await crid.died()
    await crid.start()
    started = (await crid.status(id)).state == api.CONTAINER_RUNNING
    assert started == (step == "crid.revive.after_handover")
    await fsck_is_silent(crid)
    if not started:
        await crid.cri.StartContainer(container_id=id)
    await goes_on(crid, pod)
    archive.unlink()
