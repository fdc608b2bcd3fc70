"""How crid, and what belongs to it, can end. After each of these a crid answers again.

async with running_crid() as crid:
    await DEATHS["rebooted"](crid)
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
from collections.abc import Awaitable, Callable, Mapping, Sequence

from cri.proto import api_pb2 as api
from runtime import recovery
from tests.support.crid import Crid
from tests.support.processes import children

_READY = api.PodSandboxFilter(state={"state": api.SANDBOX_READY})


async def shim_of(crid: Crid, sandbox: str) -> int:
    info = (await crid.cri.PodSandboxStatus(pod_sandbox_id=sandbox, verbose=True)).info["info"]
    return int(json.loads(info)["pid"])


async def crid_killed(crid: Crid) -> None:
    crid.kill()
    await crid.start()


async def crid_stopped(crid: Crid) -> None:
    """SIGTERM: calls under way come to their end."""
    assert await crid.terminate() == 0
    await crid.start()


async def zygote_killed(crid: Crid) -> None:
    assert crid.process is not None
    for pid in children(crid.process.pid):
        os.kill(pid, signal.SIGKILL)


async def shims_killed(crid: Crid) -> None:
    """Of every pod that is READY; returns when crid has noticed."""
    ready = [sandbox.id for sandbox in (await crid.cri.ListPodSandbox(filter=_READY)).items]
    for sandbox in ready:
        os.kill(await shim_of(crid, sandbox), signal.SIGKILL)
    await shims_gone(crid, ready)


async def shims_gone(crid: Crid, sandboxes: Sequence[str]) -> None:
    """Wait until none of the sandboxes is READY."""
    for _ in range(500):
        ready = {sandbox.id for sandbox in (await crid.cri.ListPodSandbox(filter=_READY)).items}
        if ready.isdisjoint(sandboxes):
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"sandboxes are READY without their shims:\n{crid.tail()}")


def power_cut(crid: Crid) -> None:
    """What a reboot does to crid: nothing runs, /run is empty, the boot id is another one."""
    crid.kill()
    for directory in (crid.state / "sandboxes").iterdir():
        recovery.destroy_lost(str(directory))
    shutil.rmtree(crid.state)
    for command in (
        ["ip", "link", "delete", crid.bridge],
        ["nft", "delete", "table", "inet", f"nodeagent_{crid.bridge}"],
    ):
        subprocess.run(command, check=False, capture_output=True, timeout=10)  # there are none before the first pod
    with contextlib.closing(sqlite3.connect(crid.root / "ledger.db")) as database:
        database.execute("UPDATE ledger SET boot_id = 'before'")
        database.execute("UPDATE records SET doc = json_set(doc, '$.boot', 'before') WHERE kind = 'sandbox'")
        database.commit()


async def rebooted(crid: Crid) -> None:
    power_cut(crid)
    await crid.start()


DEATHS: Mapping[str, Callable[[Crid], Awaitable[None]]] = {
    "crid killed": crid_killed,
    "crid stopped": crid_stopped,
    "zygote killed": zygote_killed,
    "shims killed": shims_killed,
    "rebooted": rebooted,
}
