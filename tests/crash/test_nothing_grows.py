"""Many pods, one after the other, with all that clients do: crid, its zygote and the machine are then as before."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from cri.client import CriError
from cri.streaming_client import exec_session
from runtime.linux.ledger import read_ledger
from tests.support.crid import Crid
from tests.support.nothing_left import nothing_is_left
from tests.support.processes import children

WARM, CYCLES = 6, 24
TALKER = ["sh", "-c", "echo ready; while :; do sleep 0.1; done"]


def resident(pid: int) -> int:
    """KiB."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") // 1024


def counted(crid: Crid) -> dict[str, object]:
    """What may not change at all."""
    assert crid.process is not None
    [zygote] = children(crid.process.pid)
    rules = subprocess.run(
        ["nft", "list", "table", "inet", f"nodeagent_{crid.bridge}"], capture_output=True, check=False, timeout=10
    )
    return {
        "ledger": Counter(entry.kind for entry in read_ledger(crid.root / "ledger.db")),
        "files below root": sum(len(names) for _, _, names in os.walk(crid.root)),
        "files below state": sum(len(names) for _, _, names in os.walk(crid.state)),
        "cgroups": sum(crid.bridge in directory for directory, _, _ in os.walk("/sys/fs/cgroup")),
        "rules": rules.stdout.count(b"\n"),
        "mounts": Path("/proc/self/mountinfo").read_text().count(str(crid.base)),
        "descriptors of the zygote": len(os.listdir(f"/proc/{zygote}/fd")),
    }


async def cycle(crid: Crid, image: str, number: int, null: int) -> None:
    """A pod's life, with its clients."""
    cri, tty = crid.cri, number % 3 == 0
    events = asyncio.ensure_future(anext(aiter(cri.GetContainerEvents(timeout=30)), None))
    pod = await crid.run_pod(crid.pod_config(port_mappings=[{"container_port": 80, "host_port": 19000 + number}]))
    id = await crid.run(pod, image, TALKER, tty=tty)
    assert await crid.exec(id, "echo", "x") == (0, "x\n", "")
    executed = (await cri.Exec(container_id=id, cmd=["echo", "y"], stdout=True, stderr=True)).url
    assert await exec_session(executed, stdin=None, stdout=null, stderr=null) == 0
    attached = (await cri.Attach(container_id=id, stdout=True, tty=tty)).url
    looking = asyncio.ensure_future(exec_session(attached, stdin=None, stdout=null, stderr=null))
    await cri.ListContainerStats()
    await cri.ListPodSandboxMetrics()
    with pytest.raises(CriError):
        await crid.run(pod, image, ["/no/such/program"], name="bad")
    await cri.StopPodSandbox(pod_sandbox_id=pod[0])
    with contextlib.suppress(Exception):
        await asyncio.wait_for(looking, 5)
    await cri.RemovePodSandbox(pod_sandbox_id=pod[0])
    events.cancel()
    if number % 5 == 0:
        await cri.RemoveImage(image={"image": image})
        await cri.PullImage(image={"image": image})


async def test_nothing_grows_with_the_number_of_pods(crid: Crid, busybox: str) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    assert crid.process is not None
    pid = crid.process.pid
    for number in range(WARM):
        await cycle(crid, busybox, number, null)
    await nothing_is_left(crid)
    before, memory = counted(crid), resident(pid)
    descriptors, threads = len(os.listdir(f"/proc/{pid}/fd")), len(os.listdir(f"/proc/{pid}/task"))
    for number in range(WARM, WARM + CYCLES):
        await cycle(crid, busybox, number, null)
    await nothing_is_left(crid)
    assert counted(crid) == before
    assert len(os.listdir(f"/proc/{pid}/fd")) <= descriptors + 2
    assert len(os.listdir(f"/proc/{pid}/task")) <= threads + 4  # pools that grow to their size
    assert resident(pid) - memory < 6 * 1024  # 300 of these cycles: less than 2 MiB
    os.close(null)
