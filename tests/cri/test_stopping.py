"""StopContainer: signals, deadlines, and calls that overlap; log rotation."""

from __future__ import annotations

import asyncio
import shutil
import time
from pathlib import Path

import pytest

from cri.client import CriError
from cri.proto import api_pb2 as api
from tests.support.crid import Crid
from tests.support.images import busybox_rootfs, push_image
from tests.support.registry import Registry


def stop(id: str, timeout: int) -> api.StopContainerRequest:
    return api.StopContainerRequest(container_id=id, timeout=timeout)


TRAPPING = "trap 'echo caught; exit 7' {}; echo ready; while :; do sleep 0.05; done"


async def started_and_ready(
    crid: Crid, pod: tuple[str, api.PodSandboxConfig], image: str, script: str, **fields: object
) -> str:
    id = await crid.run(pod, image, ["sh", "-c", script], **fields)
    for _ in range(200):
        if "ready" in crid.log_of(pod[1]):
            return id
        await asyncio.sleep(0.01)
    raise AssertionError("never ready")


@pytest.mark.parametrize(
    ("signal", "trap"),
    [(api.SIGNAL_RUNTIME_DEFAULT, "TERM"), (api.SIGNAL_SIGUSR1, "USR1"), (api.SIGNAL_SIGRTMINPLUS3, "37")],
)
async def test_the_stop_signal_comes_first(crid: Crid, busybox: str, signal: api.Signal, trap: str) -> None:
    pod = await crid.run_pod()
    id = await started_and_ready(crid, pod, busybox, TRAPPING.format(trap), stop_signal=signal)
    await crid.cri.StopContainer(stop(id, 10))
    status = await crid.status(id)
    assert (status.exit_code, "caught" in crid.log_of(pod[1])) == (7, True)
    assert status.stop_signal == (signal or api.SIGNAL_SIGTERM)
    await crid.cri.StopContainer(stop(id, 10))


async def test_a_real_time_signal_of_the_image(crid: Crid, registry: Registry) -> None:
    """systemd's own: SIGRTMIN+3 halts it, while SIGTERM makes it start again."""
    pushed = push_image(registry, "halts:1", [busybox_rootfs()], {"Cmd": ["sh"], "StopSignal": "SIGRTMIN+3"})
    await crid.cri.PullImage(image={"image": pushed.ref})
    pod = await crid.run_pod()
    id = await started_and_ready(crid, pod, pushed.ref, TRAPPING.format("37"))
    await crid.cri.StopContainer(stop(id, 10))
    status = await crid.status(id)
    assert (status.exit_code, status.stop_signal) == (7, api.SIGNAL_SIGRTMINPLUS3)


async def test_a_container_that_ignores_it_is_killed(crid: Crid, busybox: str) -> None:
    pod = await crid.run_pod()
    id = await started_and_ready(crid, pod, busybox, "trap '' TERM; echo ready; sleep 1000 & wait; sleep 1000")
    started = time.monotonic()
    await crid.cri.StopContainer(stop(id, 1))
    assert 0.9 <= time.monotonic() - started < 5
    assert (await crid.status(id)).exit_code == 137


async def test_a_shorter_timeout_wins(crid: Crid, busybox: str) -> None:
    pod = await crid.run_pod()
    id = await started_and_ready(crid, pod, busybox, "trap '' TERM; echo ready; while :; do sleep 0.1; done")
    started = time.monotonic()
    patient = asyncio.create_task(crid.cri.StopContainer(stop(id, 60)))
    await asyncio.sleep(0.1)
    await crid.cri.StopContainer(stop(id, 1))
    await patient
    assert time.monotonic() - started < 10


async def test_timeout_0_kills_at_once(crid: Crid, busybox: str) -> None:
    pod = await crid.run_pod()
    id = await started_and_ready(crid, pod, busybox, "trap '' TERM; echo ready; while :; do sleep 0.1; done")
    started = time.monotonic()
    await crid.cri.StopContainer(stop(id, 0))
    assert time.monotonic() - started < 2


async def test_removing_a_running_container_kills_it(crid: Crid, busybox: str) -> None:
    id = await crid.run(await crid.run_pod(), busybox, ["sleep", "1000"])
    await crid.cri.RemoveContainer(container_id=id)
    assert (await crid.cri.ListContainers()).containers == []


async def test_logs_can_be_rotated(crid: Crid, busybox: str) -> None:
    pod = await crid.run_pod()
    id = await started_and_ready(
        crid, pod, busybox, "echo ready; while [ ! -e /go ]; do sleep 0.02; done; echo after; sleep 1000"
    )
    log = Path(pod[1].log_directory, "main.log")
    log.rename(log.with_suffix(".1"))
    await crid.cri.ReopenContainerLog(container_id=id)
    await crid.exec(id, "touch", "/go")
    for _ in range(200):
        if log.exists() and "after" in log.read_text():
            break
        await asyncio.sleep(0.01)
    assert crid.log_of(pod[1]) == "after"
    await crid.cri.StopContainer(stop(id, 0))
    log.unlink()
    with pytest.raises(CriError, match="does not run"):
        await crid.cri.ReopenContainerLog(container_id=id)
    assert not log.exists()


async def test_a_log_whose_directory_is_gone(crid: Crid, busybox: str) -> None:
    pod = await crid.run_pod()
    id = await crid.run(pod, busybox, ["sleep", "1000"], log_path="deep/main.log")
    shutil.rmtree(Path(pod[1].log_directory, "deep"))
    with pytest.raises(CriError, match="is gone; make it") as caught:
        await crid.cri.ReopenContainerLog(container_id=id)
    assert caught.value.code == "FAILED_PRECONDITION"
    silent = await crid.run(pod, busybox, ["sleep", "1000"], name="silent", log_path="")
    await crid.cri.ReopenContainerLog(container_id=silent)
