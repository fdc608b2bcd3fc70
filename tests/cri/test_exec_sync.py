"""ExecSync: exit codes, limits, deadlines, and nothing left of any of them."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from cri.client import CriError
from cri.proto import api_pb2 as api
from tests.support.crid import Crid

MIB = 1 << 20


async def shell(crid: Crid, image: str) -> str:
    return await crid.run(await crid.run_pod(), image, ["sleep", "1000"])


async def test_output_and_exit_code(crid: Crid, busybox: str) -> None:
    id = await shell(crid, busybox)
    assert await crid.exec(id, "sh", "-c", "echo out; echo err >&2; exit 42") == (42, "out\n", "err\n")
    assert (await crid.exec(id, "sh", "-c", "kill -9 $$"))[0] == 137
    assert (await crid.exec(id, "sh", "-c", "echo $FROM; pwd"))[1] == "image\n/\n"


async def test_output_is_cut_at_16_mib_and_the_command_goes_on(crid: Crid, busybox: str) -> None:
    """CVE-2022-1708, CVE-2022-31030."""
    id = await shell(crid, busybox)
    before = daemon_rss(crid)
    script = "head -c 40000000 /dev/zero; head -c 20000000 /dev/zero >&2; exit 5"
    answer = await crid.cri.ExecSync(api.ExecSyncRequest(container_id=id, cmd=["sh", "-c", script], timeout=60))
    assert (answer.exit_code, len(answer.stdout), len(answer.stderr)) == (5, 16 * MIB, 16 * MIB)
    assert daemon_rss(crid) - before < 160 * MIB


def daemon_rss(crid: Crid) -> int:
    assert crid.process is not None
    status = Path(f"/proc/{crid.process.pid}/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmRSS:"))


async def test_a_timeout_kills_the_whole_tree(crid: Crid, busybox: str) -> None:
    id = await shell(crid, busybox)
    started = time.monotonic()
    with pytest.raises(CriError, match="timed out after 1 s") as caught:
        await crid.exec(id, "sh", "-c", "(sleep 4321 & sleep 4321) & sleep 4321", timeout=1)
    assert caught.value.code == "DEADLINE_EXCEEDED"
    assert time.monotonic() - started < 5
    for _ in range(100):
        if "4321" not in (await crid.exec(id, "ps"))[1]:
            return
        await asyncio.sleep(0.02)
    pytest.fail("the command's children still run")


async def test_a_client_that_leaves_ends_its_command(crid: Crid, busybox: str) -> None:
    id = await shell(crid, busybox)
    with pytest.raises(CriError):
        await crid.cri.ExecSync(api.ExecSyncRequest(container_id=id, cmd=["sleep", "4321"]), timeout=0.3)
    for _ in range(100):
        if "4321" not in (await crid.exec(id, "ps"))[1]:
            return
        await asyncio.sleep(0.02)
    pytest.fail("the command still runs")


async def test_a_grandchild_that_keeps_the_pipe_does_not_delay_the_answer(crid: Crid, busybox: str) -> None:
    id = await shell(crid, busybox)
    started = time.monotonic()
    assert await crid.exec(id, "sh", "-c", "sleep 30 & echo done") == (0, "done\n", "")
    assert time.monotonic() - started < 5


async def test_commands_that_cannot_run(crid: Crid, busybox: str) -> None:
    id = await shell(crid, busybox)
    with pytest.raises(CriError, match="no-such-command"):
        await crid.exec(id, "no-such-command")
    with pytest.raises(CriError, match="cmd is empty"):
        await crid.exec(id)
    await crid.cri.StopContainer(container_id=id)
    with pytest.raises(CriError, match="CONTAINER_EXITED") as caught:
        await crid.exec(id, "true")
    assert caught.value.code == "FAILED_PRECONDITION"


async def test_many_at_once_leave_no_descriptor(crid: Crid, busybox: str) -> None:
    id = await shell(crid, busybox)
    assert crid.process is not None
    fds = Path(f"/proc/{crid.process.pid}/fd")
    await crid.exec(id, "true")
    before = len(list(fds.iterdir()))
    results = await asyncio.gather(*(crid.exec(id, "sh", "-c", f"echo {n}") for n in range(50)))
    assert [out for _, out, _ in results] == [f"{n}\n" for n in range(50)]
    assert len(list(fds.iterdir())) <= before + 2
