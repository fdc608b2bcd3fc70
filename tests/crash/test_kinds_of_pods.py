"""kill -9 of crid at the steps of pods that are not plain: with a user namespace, and of an external runtime.

The state that follows is the same as for any other pod (test_restart_table.py); what is asked here is that nothing is
left of what only these have: an id-mapped tree, a pinned user namespace; a bundle, a runtime's own state and processes.
"""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from typing import Any

import pytest

from cri.client import CriError
from cri.proto import api_pb2 as api
from tests.support.crid import Crid, Sandbox, running_crid
from tests.support.nothing_left import fsck_is_silent, nothing_is_left
from tests.support.restart_scene import sandbox_state, state_of
from tests.support.tables import rows_of

IDS: dict[str, Any] = {"host_id": 1_000_000, "container_id": 0, "length": 65_536}
USERNS = {"mode": api.POD, "uids": [IDS], "gids": [IDS]}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "user namespace": ("", {"userns_options": USERNS, "pid": api.CONTAINER}),
    "runc": ("runc", {"pid": api.CONTAINER}),
}

STEPS = """
killed at                             | sandbox  | container | why
--------------------------------------|----------|-----------|-----------------------------------------------
crid.run_sandbox.after_shim           | gone     | gone      | it has no record, nobody was told of it
start.before_cgroup                   | ready    | created   | it has no cgroup yet, but a record
crid.start_container.before_record    | ready    | running   | its shim knows
crid.end_sandbox.after_network        | notready | 137 Error | the stop goes on, and its shim is asked first
"""


@pytest.fixture
async def crid() -> AsyncIterator[Crid]:
    async with running_crid(settings=f'runtimes.runc.path = "{shutil.which("runc")}"') as crid:
        yield crid


@pytest.mark.parametrize("kind", KINDS)
async def test_crid_is_killed_at_a_step(crid: Crid, busybox: str, kind: str) -> None:
    handler, options = KINDS[kind]
    if handler and shutil.which(handler) is None:
        pytest.skip(f"{handler} is not installed (Debian: {handler})")
    for row in rows_of(STEPS):
        step = row["killed at"]
        crid.kill()
        await crid.start(f"{step}=kill")
        config = crid.pod_config(linux={"security_context": {"namespace_options": options}})
        sandbox, container = await live_until_killed(crid, config, handler, busybox, stop="end_sandbox" in step)
        await crid.died()
        await crid.start()
        if row["container"].endswith("Error"):
            await crid.ended(container)  # the stop goes on beside crid's answers
        found = await sandbox_state(crid, sandbox), await state_of(crid, container)
        assert found == (row["sandbox"], row["container"]), step
        await fsck_is_silent(crid)
        if found[0] == "ready":
            await serves((sandbox, config), crid, busybox)
        await crid.cri.RemovePodSandbox(pod_sandbox_id=sandbox or "0" * 64)
        await nothing_is_left(crid)


async def live_until_killed(
    crid: Crid, config: api.PodSandboxConfig, handler: str, image: str, stop: bool
) -> tuple[str, str]:
    """A pod's whole life, as far as it comes: the ids of its sandbox and container, as far as they were told."""
    sandbox = container = ""
    try:
        sandbox = (await crid.cri.RunPodSandbox(config=config, runtime_handler=handler)).pod_sandbox_id
        container = await crid.create((sandbox, config), image, ["sleep", "1000"])
        await crid.cri.StartContainer(container_id=container)
        if stop:
            await crid.cri.StopPodSandbox(pod_sandbox_id=sandbox)
        await crid.cri.RemoveContainer(container_id=container)
    except CriError as error:
        assert error.code == "UNAVAILABLE", error
        return sandbox, container
    raise AssertionError("crid was not killed")


async def serves(pod: Sandbox, crid: Crid, image: str) -> None:
    """What is there runs, is executed in, and ends; and another one runs in the same pod."""
    id = await crid.run(pod, image, ["sh", "-c", "echo more; exec sleep 1000"], name="more")
    for each in (await crid.cri.ListContainers()).containers:
        if each.state == api.CONTAINER_CREATED:
            await crid.cri.StartContainer(container_id=each.id)
        if each.state != api.CONTAINER_EXITED:
            assert await crid.exec(each.id, "echo", "hello") == (0, "hello\n", "")
    assert crid.log_of(pod[1], "more") == "more"
    await crid.cri.StopContainer(container_id=id)
    assert (await crid.status(id)).exit_code == 137
