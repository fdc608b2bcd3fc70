"""What becomes of every state when something dies: the table is the specification, and the tests hold crid to it.

All states are there at once when the death comes. Afterwards each pod can be removed and made again, logs and exit
codes are true, and nothing is left. Deaths in the middle of a call, at each of its steps, are in test_crid.py; what the
machine's restart makes of those is the last table here.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import AsyncIterator

import pytest

from cri.client import CriError
from cri.proto import api_pb2 as api
from tests.support.crid import Crid, running_crid
from tests.support.deaths import DEATHS, rebooted
from tests.support.nothing_left import fsck_is_silent, nothing_is_left
from tests.support.restart_scene import Scene, sandbox_state, state_of
from tests.support.tables import rows_of

SANDBOXES = """
before           | crid killed | crid stopped | zygote killed | shims killed | rebooted | why
-----------------|-------------|--------------|---------------|--------------|----------|-----------------------------
own network      | ready       | ready        | ready         | notready     | notready | it lives as long as its shim
host network     | ready       | ready        | ready         | notready     | notready | the same
shared pids      | ready       | ready        | ready         | notready     | notready | the same, with an init in it
no container     | ready       | ready        | ready         | notready     | notready | the same, with nothing in it
user namespace   | ready       | ready        | ready         | notready     | notready | the same, with one more pin
of runc          | ready       | ready        | ready         | notready     | notready | the same: runc is gone by then
stopped          | notready    | notready     | notready      | notready     | notready | a stop is for ever
lost its shim    | notready    | notready     | notready      | notready     | notready | a pod is never READY again
"""

CONTAINERS = """
before           | crid killed | crid stopped | zygote killed | shims killed | rebooted    | why
-----------------|-------------|--------------|---------------|--------------|-------------|---------------------------------
created          | created     | created      | created       | created      | created     | nothing ran, nothing ended
running          | running     | running      | running       | lost         | lost        | nobody saw how it ended
exited 0         | 0 Completed | 0 Completed  | 0 Completed   | 0 Completed  | 0 Completed | exits are written down
exited 3         | 3 Error     | 3 Error      | 3 Error       | 3 Error      | 3 Error     | likewise
oom killed       | 137 OOM     | 137 OOM      | 137 OOM       | 137 OOM      | 137 OOM     | so is the reason
start failed     | 128 Start   | 128 Start    | 128 Start     | 128 Start    | 128 Start   | and the failure to start
being stopped    | running     | 137 Error    | 137 Error     | lost         | lost        | a stop dies with crid
with an exec     | running     | running      | running       | lost         | lost        | an exec changes nothing
with an attach   | running     | running      | running       | lost         | lost        | nor is who looks on
in user namespace| running     | running      | running       | lost         | lost        | as any other
run by runc      | running     | running      | running       | lost         | lost        | its shim is its parent
exited of runc   | 3 Error     | 3 Error      | 3 Error       | 3 Error      | 3 Error     | its shim has seen it
"""

CALLS = """
under way        | crid killed | crid stopped | zygote killed | shims killed | rebooted | why
-----------------|-------------|--------------|---------------|--------------|----------|------------------------------------
StopContainer    | fails       | answers      | answers       | answers      | fails    | SIGTERM lets calls end
ExecSync         | fails       | answers      | answers       | fails        | fails    | its exit is the shim's to tell
attach           | ends        | ends         | goes on       | ends         | ends     | streams pass through crid
"""

STEPS = """
killed at                             | sandbox after a reboot | container | why
--------------------------------------|------------------------|-----------|-----------------------------------------------
crid.run_sandbox.after_ledger         | gone                   | gone      | it has no record, nobody was told of it
crid.run_sandbox.after_shim           | gone                   | gone      | likewise
crid.run_sandbox.after_network        | gone                   | gone      | likewise, and its address is free again
crid.create_container.before_record   | notready               | gone      | likewise
crid.start_container.before_start     | notready               | created   | it never ran
crid.start_container.before_record    | notready               | created   | nobody was told that it ran
crid.end_sandbox.after_network        | notready               | lost      | it ran until the machine went down
crid.end_sandbox.after_pod            | notready               | 137 Error | its shim had told of the end
crid.remove_container.before_snapshot | notready               | 137 Error | RemoveContainer had killed it
"""


@pytest.fixture
async def crid() -> AsyncIterator[Crid]:
    if shutil.which("runc") is None:
        pytest.skip("runc is not installed (Debian: runc)")
    async with running_crid(settings='runtimes.runc.path = "runc"') as crid:
        yield crid


def column(table: str, name: str) -> dict[str, str]:
    rows = rows_of(table)
    first = next(iter(rows[0]))
    return {row[first]: row[name] for row in rows}


@pytest.mark.parametrize("death", DEATHS)
async def test_what_follows(crid: Crid, busybox: str, death: str) -> None:
    with contextlib.closing(Scene(crid, busybox)) as scene:
        await scene.set()
        await DEATHS[death](crid)
        assert await scene.calls() == column(CALLS, death)
        assert await scene.sandbox_states() == column(SANDBOXES, death)
        assert await scene.container_states() == column(CONTAINERS, death)
        await scene.logs_are_true()
        await fsck_is_silent(crid)
        await scene.make_every_pod_again()
    await nothing_is_left(crid)


async def test_what_a_reboot_makes_of_half_a_call(crid: Crid, busybox: str) -> None:
    for row in rows_of(STEPS):
        step = row["killed at"]
        crid.kill()
        await crid.start(f"{step}=kill")
        config = crid.pod_config()
        sandbox, container = await live_until_killed(crid, config, busybox, stop="end_sandbox" in step)
        await crid.died()
        await rebooted(crid)
        found = await sandbox_state(crid, sandbox), await state_of(crid, container)
        assert found == (row["sandbox after a reboot"], row["container"]), step
        await fsck_is_silent(crid)
        await crid.cri.RemovePodSandbox(pod_sandbox_id=sandbox or "0" * 64)
        again = await crid.run_pod(config)
        await crid.cri.RemovePodSandbox(pod_sandbox_id=again[0])
        await nothing_is_left(crid)


async def live_until_killed(crid: Crid, config: api.PodSandboxConfig, image: str, stop: bool) -> tuple[str, str]:
    """A pod's whole life, as far as it comes: the ids of its sandbox and container, as far as they were told."""
    sandbox = container = ""
    try:
        sandbox, _ = await crid.run_pod(config)
        container = await crid.create((sandbox, config), image, ["sleep", "1000"])
        await crid.cri.StartContainer(container_id=container)
        if stop:
            await crid.cri.StopPodSandbox(pod_sandbox_id=sandbox)
        await crid.cri.RemoveContainer(container_id=container)
    except CriError:
        return sandbox, container
    raise AssertionError("crid was not killed")
