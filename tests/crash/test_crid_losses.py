"""What crid loses besides itself: its zygote, a shim, the whole machine."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sqlite3

import pytest

from cri.client import CriError
from cri.proto import api_pb2 as api
from runtime.linux.ledger import read_ledger
from runtime.linux.procs import Process
from tests.support.crid import Crid
from tests.support.deaths import rebooted, shim_of
from tests.support.nothing_left import fsck_is_silent, nothing_is_left
from tests.support.processes import children


async def test_a_killed_zygote_costs_no_pod(crid: Crid, busybox: str) -> None:
    pod = await crid.run_pod()
    id = await crid.run(pod, busybox, ["sleep", "1000"])
    assert crid.process is not None
    [zygote] = children(crid.process.pid)
    os.kill(zygote, 9)
    assert (await crid.exec(id, "true"))[0] == 0
    another = await crid.run_pod()
    await crid.run(another, busybox, ["sleep", "1000"])
    assert (await crid.status(id)).state == api.CONTAINER_RUNNING


#: A CNI plugin whose ADD outlives the pod's shim, and succeeds.
KILLING = """#!/bin/sh
cat > /dev/null
[ "$CNI_COMMAND" = ADD ] || exit 0
shim=$(grep -o '"pid": *[0-9]*' "${CNI_NETNS%/ns/net}/shim.json" | grep -o '[0-9]*$' | head -n 1)
kill -9 "$shim"
while grep -q '^State:.[^Z]' "/proc/$shim/status"; do :; done 2> /dev/null
echo '{"cniVersion": "1.0.0"}'
"""


async def test_a_shim_that_dies_while_its_pod_gets_a_network(crid: Crid) -> None:
    """A pod that nobody can do anything with must not be READY."""
    plugin = crid.base / "cni-bin" / "killing"
    plugin.write_text(KILLING)
    plugin.chmod(0o755)
    conflist = {"cniVersion": "1.0.0", "name": "killing", "plugins": [{"type": "killing"}]}
    (crid.base / "net.d" / "10-killing.conflist").write_text(json.dumps(conflist))
    with pytest.raises(CriError, match="died while the pod was being made") as caught:
        await crid.run_pod()
    assert caught.value.code == "UNAVAILABLE"
    assert (await crid.cri.ListPodSandbox()).items == []
    await fsck_is_silent(crid)


async def test_a_frozen_shim_delays_its_own_pod_only(crid: Crid, busybox: str) -> None:
    frozen, other = await crid.run_pod(), await crid.run_pod()
    await crid.run(frozen, busybox, ["sleep", "1000"])
    shim = await shim_of(crid, frozen[0])
    os.kill(shim, 19)
    try:
        stuck = asyncio.create_task(crid.cri.StopPodSandbox(pod_sandbox_id=frozen[0], timeout=90))
        await asyncio.sleep(0.1)
        id = await crid.run(other, busybox, ["sleep", "1000"])
        assert (await crid.exec(id, "true"))[0] == 0
        assert len((await crid.cri.ListPodSandbox(timeout=2)).items) == 2
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(shim, 18)
    await stuck


async def test_a_reboot(crid: Crid, busybox: str) -> None:
    pod = await crid.run_pod()
    running = await crid.run(pod, busybox, ["sleep", "1000"], name="running")
    exited = await crid.run(pod, busybox, ["sh", "-c", "exit 3"], name="exited")
    created = await crid.create(pod, busybox, ["true"], name="created")
    await crid.ended(exited)
    stopped = await crid.run_pod()
    await crid.cri.StopPodSandbox(pod_sandbox_id=stopped[0])
    await rebooted(crid)
    states = {item.id: item.state for item in (await crid.cri.ListPodSandbox()).items}
    assert states == {pod[0]: api.SANDBOX_NOTREADY, stopped[0]: api.SANDBOX_NOTREADY}
    ended = await crid.status(running)
    assert (ended.state, ended.exit_code, ended.reason) == (api.CONTAINER_EXITED, 255, "Unknown")
    assert (await crid.status(exited)).exit_code == 3
    assert (await crid.status(created)).state == api.CONTAINER_CREATED
    assert [entry.key for entry in read_ledger(crid.root / "ledger.db") if entry.kind == "ip"] == []
    await fsck_is_silent(crid)
    for sandbox in (pod, stopped):
        await crid.cri.RemovePodSandbox(pod_sandbox_id=sandbox[0])
    again = await crid.run_pod()
    assert (await crid.ended(await crid.run(again, busybox, ["true"]))).exit_code == 0


async def test_a_pod_whose_record_cannot_be_read(crid: Crid, busybox: str) -> None:
    """It may be that a newer crid wrote it: it runs on until one comes that knows it, or until all is reset."""
    pod = await crid.run_pod()
    id = await crid.run(pod, busybox, ["sleep", "1000"])
    shim = Process.of(await shim_of(crid, pod[0]))
    written = record_of(crid, pod[0])

    await crid.terminate()
    record_of(crid, pod[0], "{}")
    await crid.start()
    assert (await crid.cri.ListPodSandbox()).items == []
    assert "left alone" in crid.tail() and shim.alive()
    await crid.terminate()
    record_of(crid, pod[0], written)
    await crid.start()
    assert (await crid.exec(id, "ip", "addr", "show", "eth0"))[0] == 0
    assert (await crid.cri.PodSandboxStatus(pod_sandbox_id=pod[0])).status.state == api.SANDBOX_READY

    await crid.terminate()
    record_of(crid, pod[0], "{}")
    assert (await crid.verb("reset")).returncode == 0
    assert not shim.alive()
    await crid.start()
    await nothing_is_left(crid)


def record_of(crid: Crid, sandbox: str, doc: str | None = None) -> str:
    """A sandbox's record as it stands in the file, replaced by `doc` if that is given."""
    with contextlib.closing(sqlite3.connect(crid.root / "ledger.db")) as database:
        [(found,)] = database.execute("SELECT doc FROM records WHERE kind = 'sandbox' AND id = ?", (sandbox,))
        if doc is not None:
            database.execute("UPDATE records SET doc = ? WHERE kind = 'sandbox' AND id = ?", (doc, sandbox))
            database.commit()
    return str(found)


async def test_a_second_crid_is_refused(crid: Crid) -> None:
    first = crid.process
    crid.spawn()
    assert crid.process is not None
    assert await asyncio.to_thread(crid.process.wait, 20) == 1
    assert "another crid uses" in crid.tail()
    crid.process = first
