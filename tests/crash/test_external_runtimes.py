"""Deaths in the middle of what an external runtime does: of crid, of the shim, of the runtime; and one that hangs.

What follows is what follows with the built-in runtime; beside that no process, mount, cgroup, bundle or state of the
runtime is left.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import pytest_asyncio

from cri.client import CriError
from cri.proto import api_pb2 as api
from tests.support.crid import Crid, Sandbox, running_crid
from tests.support.nothing_left import fsck_is_silent, nothing_is_left
from tests.support.registry import Registry
from tests.support.restart_scene import sandbox_state, state_of

pytestmark = pytest.mark.asyncio(loop_scope="module")
EVER = ["sh", "-c", "trap 'exit 3' TERM; echo ready; while :; do sleep 0.05; done"]
#: runc, but what the file `before-VERB` says, a shell's words, comes first, once. $7 is the verb, behind our options.
WRAPPER = """#!/bin/sh
if mv {directory}/before-$7 {directory}/now 2>/dev/null; then . {directory}/now; fi
exec {runc} "$@"
"""


class Wrapped:
    """A runc that can be told to do something before it works, or instead of it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.runc = shutil.which("runc")
        if self.runc is None:
            pytest.skip("runc is not installed (Debian: runc)")
        self.program = directory / "runtime"
        self.program.write_text(WRAPPER.format(directory=directory, runc=self.runc))
        self.program.chmod(0o755)

    def once(self, verb: str, script: str) -> None:
        (self._directory / f"before-{verb}").write_text(script.replace("runc", str(self.runc)))

    @property
    def reached(self) -> bool:
        return not list(self._directory.glob("before-*"))


@pytest.fixture(scope="module")
def wrapped() -> Iterator[Wrapped]:
    with TemporaryDirectory(prefix="na-runc-") as directory:
        yield Wrapped(Path(directory))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def daemon(wrapped: Wrapped, registry: Registry) -> AsyncIterator[tuple[Crid, str]]:
    async with running_crid(settings=f'runtimes.wrapped.path = "{wrapped.program}"') as crid:
        yield crid, await crid.busybox(registry)


@pytest_asyncio.fixture(loop_scope="module")
async def crid(daemon: tuple[Crid, str], wrapped: Wrapped) -> AsyncIterator[Crid]:
    yield daemon[0]
    assert wrapped.reached
    await fsck_is_silent(daemon[0])
    await daemon[0].clean()
    await nothing_is_left(daemon[0])


async def created(crid: Crid, image: str) -> tuple[Sandbox, str]:
    config = crid.pod_config()
    answer = await crid.cri.RunPodSandbox(config=config, runtime_handler="wrapped")
    pod = answer.pod_sandbox_id, config
    return pod, await crid.create(pod, image, EVER)


async def start_fails(crid: Crid, id: str, code: str) -> None:
    with pytest.raises(CriError) as failed:
        await crid.cri.StartContainer(container_id=id)
    assert failed.value.code == code, failed.value


@pytest.mark.parametrize("moment", ["sleep 2", "runc $@; s=$?; sleep 2; exit $s"], ids=["before", "after"])
async def test_crid_is_killed_while_a_container_is_created(
    crid: Crid, daemon: tuple[Crid, str], wrapped: Wrapped, moment: str
) -> None:
    """Nobody was told that it runs; so it does not, also not later on, and can be started."""
    _, id = await created(crid, daemon[1])
    assert crid.process is not None
    wrapped.once("create", f"kill -9 {crid.process.pid}; {moment}")
    await start_fails(crid, id, "UNAVAILABLE")
    await crid.died()
    await crid.start()
    assert await state_of(crid, id) == "created"
    await fsck_is_silent(crid)
    await crid.cri.StartContainer(container_id=id)
    assert await crid.exec(id, "echo", "hello") == (0, "hello\n", "")
    await crid.cri.StopContainer(api.StopContainerRequest(container_id=id, timeout=5))
    assert await state_of(crid, id) == "3 Error"


@pytest.mark.parametrize(
    ("verb", "script"),
    [
        ("create", "kill -9 $PPID; sleep 0.05"),
        ("create", "runc $@ & sleep 0.03; kill -9 $PPID; wait"),
        ("create", "runc $@; kill -9 $PPID; sleep 1"),
        ("start", "runc $@; kill -9 $PPID; sleep 1"),
    ],
)
async def test_the_shim_is_killed(
    crid: Crid, daemon: tuple[Crid, str], wrapped: Wrapped, verb: str, script: str
) -> None:
    pod, id = await created(crid, daemon[1])
    wrapped.once(verb, script)
    await start_fails(crid, id, "UNAVAILABLE")
    for _ in range(100):
        if await sandbox_state(crid, pod[0]) == "notready":
            break
        await asyncio.sleep(0.02)
    assert await state_of(crid, id) == "created"


@pytest.mark.parametrize("verb", ["create", "start"])
@pytest.mark.parametrize("moment", ["", "runc $@ & sleep 0.03; kill -9 $!;", "runc $@;"], ids=["not", "half", "done"])
async def test_the_runtime_is_killed(
    crid: Crid, daemon: tuple[Crid, str], wrapped: Wrapped, verb: str, moment: str
) -> None:
    _, id = await created(crid, daemon[1])
    wrapped.once(verb, f"{moment} kill -9 $$")
    await start_fails(crid, id, "UNKNOWN")
    assert await state_of(crid, id) == "128 Start"


async def test_an_exec_that_hangs_has_its_deadline(crid: Crid, daemon: tuple[Crid, str], wrapped: Wrapped) -> None:
    """The request's, not the shim's for hanging runtimes, which is far away."""
    _, id = await created(crid, daemon[1])
    await crid.cri.StartContainer(container_id=id)
    for script in ("exec sleep 1000", "runc $@; exec sleep 1000"):
        wrapped.once("exec", script)
        started = time.monotonic()
        with pytest.raises(CriError, match="timed out after 1 s") as late:
            await crid.exec(id, "sleep", "1000", timeout=1)
        assert late.value.code == "DEADLINE_EXCEEDED" and time.monotonic() - started < 10
    for _ in range(100):
        if "sleep 1000" not in (await crid.exec(id, "ps"))[1]:
            break
        await asyncio.sleep(0.02)
    else:
        raise AssertionError("the command still runs")
    request = api.StopContainerRequest(container_id=id, timeout=0)
    wrapped.once("delete", "kill -9 $$")
    await crid.cri.StopContainer(request)
    assert await state_of(crid, id) == "137 Error"
    await crid.cri.RemoveContainer(container_id=id)  # waits for `delete`
