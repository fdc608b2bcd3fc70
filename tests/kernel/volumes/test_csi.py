"""Pods' CSI volumes through a real driver process that dies, hangs, lies or is not there."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from csi.proto import csi_pb2
from nodeagent.volumes import recovery
from nodeagent.volumes.claims import ClaimIndex
from nodeagent.volumes.errors import VolumesError
from nodeagent.volumes.manager import VolumeManager
from runtime.linux.ledger import Ledger
from runtime.linux.mounttable import mounts_at, mounts_beneath, unmount_beneath
from runtime.linux.syscalls import umount2
from tests.support.csi_driver import NAME, DriverProcess
from tests.support.volume_documents import claim, claimed, inline, pod, volume

NONE = ClaimIndex()
SCRATCH = pod(inline(NAME))
CLAIMS = ClaimIndex([volume(driver=NAME), claim()])


@pytest.fixture
async def driven(driver: DriverProcess, manager: VolumeManager) -> AsyncIterator[VolumeManager]:
    """The manager, once the driver is registered with it."""
    driver.start()
    await manager.drivers.get(NAME)
    yield manager


async def restarted(driver: DriverProcess, manager: VolumeManager) -> None:
    before = (await manager.drivers.get(NAME)).driver
    driver.kill()
    driver.start()
    async with asyncio.timeout(20):
        while (await manager.drivers.get(NAME)).driver is before:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def test_an_inline_volume(driven: VolumeManager, driver: DriverProcess, ledger: Ledger) -> None:
    path = (await driven.mount(SCRATCH, NONE))["scratch"].host_path
    assert path == driven.layout.root / "pods/uid-1/volumes/kubernetes.io~csi/scratch/mount"
    (path / "file").write_text("x")
    about = json.loads((path.parent / "vol_data.json").read_text())
    assert (about["driverName"], about["volumeLifecycleMode"], about["specVolID"]) == (NAME, "Ephemeral", "scratch")
    await driven.unmount("uid-1")
    assert not list(driven.layout.pods.iterdir())
    assert not list((driver.data / "volumes").iterdir())
    assert ledger.entries() == []


async def test_two_pods_share_a_claim(driven: VolumeManager, ledger: Ledger) -> None:
    first = (await driven.mount(pod(claimed(), uid="u1"), CLAIMS))["data"].host_path
    second = (await driven.mount(pod(claimed(readOnly=True), uid="u2"), CLAIMS))["data"].host_path
    (first / "file").write_text("shared")
    assert (second / "file").read_text() == "shared"
    assert mounts_at(second)[0].read_only
    staging = driven.layout.staging(NAME, "pv-1")
    assert mounts_at(staging)
    await driven.unmount("u1")
    assert mounts_at(staging)
    await driven.unmount("u2")
    assert not mounts_beneath(driven.layout.root)
    assert not staging.parent.exists()
    assert ledger.entries() == []
    again = (await driven.mount(pod(claimed(), uid="u3"), CLAIMS))["data"].host_path
    assert (again / "file").read_text() == "shared"


async def test_a_volume_that_is_there_needs_no_driver(driven: VolumeManager, driver: DriverProcess) -> None:
    await driven.mount(SCRATCH, NONE)
    driver.signal(signal.SIGSTOP)
    started = time.monotonic()
    await driven.mount(SCRATCH, NONE)
    assert time.monotonic() - started < 1
    driver.signal(signal.SIGCONT)


async def test_the_group_is_the_drivers_affair(driven: VolumeManager) -> None:
    found = await driven.mount(pod(inline(NAME), securityContext={"fsGroup": 4242}), NONE)
    status = found["scratch"].host_path.stat()
    assert status.st_gid == 4242
    assert status.st_mode & stat.S_ISGID


async def test_a_volume_for_one_pod_at_a_time(driven: VolumeManager) -> None:
    modes = ["ReadWriteOncePod"]
    index = ClaimIndex([volume(driver=NAME, accessModes=modes), claim(accessModes=modes)])
    await driven.mount(pod(claimed(), uid="u1"), index)
    with pytest.raises(VolumesError, match="in use by the pod with uid u1"):
        await driven.mount(pod(claimed(), uid="u2"), index)
    await driven.unmount("u1")
    await driven.mount(pod(claimed(), uid="u2"), index)


async def test_a_driver_that_is_not_there(manager: VolumeManager, ledger: Ledger) -> None:
    with pytest.raises(VolumesError, match=f"CSI driver {NAME} is not registered on this node .none is registered"):
        await manager.mount(SCRATCH, NONE)
    assert ledger.entries() == []
    assert not manager.layout.pods.exists()


async def test_a_driver_that_comes_while_a_pod_waits(manager: VolumeManager, driver: DriverProcess) -> None:
    manager.drivers.patience = 60  # a driver is an interpreter that starts
    waiting = asyncio.create_task(manager.mount(SCRATCH, NONE))
    await asyncio.sleep(0)
    await asyncio.to_thread(driver.start)
    assert (await waiting)["scratch"].host_path.is_dir()


async def test_what_the_driver_refuses_is_undone(driven: VolumeManager, ledger: Ledger) -> None:
    unknown = volume(csi={"driver": NAME, "volumeHandle": "nobody-made-it"})
    with pytest.raises(VolumesError, match=r"NodeStageVolume of volume nobody-made-it: NOT_FOUND.*createIfMissing"):
        await driven.mount(pod(claimed()), ClaimIndex([unknown, claim()]))
    await driven.unmount("uid-1")
    assert ledger.entries() == []
    assert not mounts_beneath(driven.layout.root)
    assert not driven.layout.staging(NAME, "nobody-made-it").parent.exists()


async def test_what_works_stays_when_another_volume_fails(driven: VolumeManager) -> None:
    with pytest.raises(VolumesError) as caught:
        await driven.mount(pod(inline(NAME), inline("other.example", "other")), NONE)
    assert [error.volume for error in caught.value.errors] == ["other"]
    assert mounts_at(driven.layout.volume("uid-1", "kubernetes.io~csi", "scratch") / "mount")
    await driven.unmount("uid-1")
    assert not list(driven.layout.pods.iterdir())


async def test_a_killed_driver_is_found_again(driven: VolumeManager, driver: DriverProcess) -> None:
    path = (await driven.mount(SCRATCH, NONE))["scratch"].host_path
    (path / "file").write_text("x")
    driver.kill()
    assert (path / "file").read_text() == "x"
    with pytest.raises(VolumesError, match=r"nothing answers at .*csi\.sock: start the driver"):
        await driven.mount(pod(inline(NAME), uid="u2"), NONE)
    driver.start()
    await driven.mount(pod(inline(NAME), uid="u2"), NONE)
    for uid in ("uid-1", "u2"):
        await driven.unmount(uid)
    assert not mounts_beneath(driven.layout.root)


async def test_a_pod_that_ended_while_its_driver_was_away(
    driven: VolumeManager, driver: DriverProcess, ledger: Ledger
) -> None:
    await driven.mount(SCRATCH, NONE)
    driver.kill()
    with pytest.raises(VolumesError, match="nothing answers"):
        await driven.unmount("uid-1")
    assert driven.pending == {"uid-1"}
    driver.start()
    async with asyncio.timeout(20):
        while driven.pending:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    assert ledger.entries() == []
    assert not mounts_beneath(driven.layout.root)


async def test_a_pod_that_came_back_before_its_unmount_was_retried(
    driven: VolumeManager, driver: DriverProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "FIRST_PAUSE", 0.1)
    path = (await driven.mount(SCRATCH, NONE))["scratch"].host_path
    (path / "file").write_text("alive")
    driver.kill()
    with pytest.raises(VolumesError):
        await driven.unmount("uid-1")
    await driven.mount(SCRATCH, NONE)
    await restarted(driver, driven)
    await asyncio.sleep(0.5)
    assert (path / "file").read_text() == "alive"
    assert driven.pending == frozenset()


async def test_a_hanging_driver_delays_its_own_pods_only(
    driven: VolumeManager, driver: DriverProcess, ledger: Ledger
) -> None:
    driver.signal(signal.SIGSTOP)
    hanging = asyncio.create_task(driven.mount(SCRATCH, NONE))
    started = time.monotonic()
    await driven.mount(pod({"name": "plain", "emptyDir": {}}, uid="u2"), NONE)
    assert time.monotonic() - started < 1
    with pytest.raises(VolumesError, match=r"DEADLINE_EXCEEDED.*hangs or its storage does"):
        await hanging
    assert time.monotonic() - started < 10
    driver.signal(signal.SIGCONT)
    await driven.mount(SCRATCH, NONE)
    await driven.unmount("uid-1")
    await driven.unmount("u2")
    assert ledger.entries() == []


async def test_garbage_beside_a_volume_disturbs_nothing(driven: VolumeManager, ledger: Ledger) -> None:
    path = (await driven.mount(SCRATCH, NONE))["scratch"].host_path
    (path.parent / "vol_data.json").write_bytes(b"\xff{garbage")
    result = await driven.reconcile([])
    assert (result.undone, result.left) == (["pod uid-1"], {})
    assert ledger.entries() == []
    assert not path.parent.exists()


async def test_files_below_a_target_that_is_not_mounted_stay(driven: VolumeManager, ledger: Ledger) -> None:
    path = (await driven.mount(SCRATCH, NONE))["scratch"].host_path
    unmount_beneath(path)
    (path / "file").write_text("precious")
    with pytest.raises(VolumesError, match="not empty"):
        await driven.unmount("uid-1")
    assert (path / "file").read_text() == "precious"
    assert ledger.entries(holder="uid-1")
    (path / "file").unlink()
    await driven.unmount("uid-1")
    assert ledger.entries() == []


async def test_a_driver_that_forgets_to_unmount_loses_nobodys_data(
    driven: VolumeManager, driver: DriverProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = (await driven.mount(SCRATCH, NONE))["scratch"].host_path
    (path / "file").write_text("precious")

    async def pretend(volume_id: str, target: Path) -> None:
        """Answers OK and does nothing."""

    registered = await driven.drivers.get(NAME)
    with monkeypatch.context() as patched:
        patched.setattr(registered.driver, "unpublish", pretend)
        with pytest.raises(VolumesError, match="still mounted although its driver has given it back"):
            await driven.unmount("uid-1")
    assert (path / "file").read_text() == "precious"
    await driven.unmount("uid-1")


async def test_after_a_reboot_the_volume_is_published_again(
    driven: VolumeManager, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = (await driven.mount(pod(claimed()), CLAIMS))["data"].host_path
    (path / "file").write_text("kept")
    unmount_beneath(driven.layout.root)
    monkeypatch.setattr("nodeagent.volumes.csi_volume.boot_id", lambda: "another-boot")
    assert ((await driven.mount(pod(claimed()), CLAIMS))["data"].host_path / "file").read_text() == "kept"
    await driven.unmount("uid-1")
    assert ledger.entries() == []


async def test_staged_volumes_that_no_pod_uses(driven: VolumeManager, ledger: Ledger) -> None:
    path = (await driven.mount(pod(claimed()), CLAIMS))["data"].host_path
    # As after a kill between the two: the pod's entry is struck, the staging path's is not.
    umount2(str(path))
    os.rmdir(path)
    for entry in ledger.entries(holder="uid-1"):
        ledger.strike(entry)
    result = await driven.reconcile([])
    assert result.undone == [f"staged volume pv-1 of {NAME}"]
    assert not mounts_beneath(driven.layout.root)
    assert ledger.entries() == []


async def test_a_driver_without_staging_or_extras(
    driven: VolumeManager, driver: DriverProcess, monkeypatch: pytest.MonkeyPatch, ledger: Ledger
) -> None:
    registered = await driven.drivers.get(NAME)
    seen: list[csi_pb2.VolumeCapability] = []

    async def publish(asked, target, *, staging_path, read_only) -> None:  # type: ignore[no-untyped-def]
        assert staging_path is None
        seen.append(asked.capability())
        target.mkdir()

    async def unpublish(volume_id: str, target: Path) -> None:
        target.rmdir()

    bare = type(registered)(registered.socket, registered.driver, registered.node, frozenset())
    monkeypatch.setitem(driven.drivers._known, NAME, bare)
    monkeypatch.setattr(registered.driver, "publish", publish)
    monkeypatch.setattr(registered.driver, "unpublish", unpublish)
    source = {"driver": NAME, "volumeHandle": "v", "fsType": "ext4"}
    wanted = pod(claimed(), securityContext={"fsGroup": 4242})
    path = (await driven.mount(wanted, ClaimIndex([volume(csi=source), claim()])))["data"].host_path
    assert seen[0].access_mode.mode == csi_pb2.VolumeCapability.AccessMode.SINGLE_NODE_WRITER
    assert seen[0].mount.volume_mount_group == ""
    assert path.stat().st_gid == 4242
    await driven.unmount("uid-1")
    assert ledger.entries() == []
