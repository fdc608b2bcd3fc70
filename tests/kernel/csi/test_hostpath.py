"""The hostpath driver through its socket, on real mounts: order, repetition, hostile names, kill -9 at every step."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from csi.client import AccessMode, CsiDriver, CsiError, Volume
from csi.hostpath.node import CREATE, EPHEMERAL, FAILPOINTS
from csi.proto import csi_pb2
from runtime.linux import mountapi, mounts
from runtime.linux.mounttable import mounts_at, mounts_beneath
from tests.support.csi_driver import DriverProcess, driver_process

INLINE = Volume("csi-abc", AccessMode.SINGLE_NODE_WRITER, context={EPHEMERAL: "true"})
PERSISTENT = Volume("static-1", AccessMode.SINGLE_NODE_WRITER, context={CREATE: "true"})


@pytest.fixture
def process(short_path: Path) -> Iterator[DriverProcess]:
    with driver_process(short_path) as driver:
        yield driver


@pytest.fixture
async def driver(process: DriverProcess) -> AsyncIterator[CsiDriver]:
    client = CsiDriver(process.socket, process.name, work_timeout=20, query_timeout=10)
    yield client
    await client.close()


@pytest.fixture
def staging(short_path: Path) -> Path:
    (short_path / "staging").mkdir()
    return short_path / "staging"


@pytest.fixture
def target(short_path: Path) -> Path:
    (short_path / "pod").mkdir()
    return short_path / "pod" / "mount"


async def usages(driver: CsiDriver, path: Path) -> list[csi_pb2.VolumeUsage]:
    """Of the volume PERSISTENT; our agent does not ask for it, others do."""
    request = csi_pb2.NodeGetVolumeStatsRequest(volume_id=PERSISTENT.id, volume_path=str(path))
    return list((await driver._query("NodeGetVolumeStats", request)).usage)


async def test_identity_and_node(driver: CsiDriver) -> None:
    assert await driver.identity() == driver.name
    info = await driver.node_info()
    assert (info.node_id, info.topology) == ("node-1", {f"topology.{driver.name}/node": "node-1"})
    assert {"STAGE_UNSTAGE_VOLUME", "GET_VOLUME_STATS", "VOLUME_MOUNT_GROUP"} <= await driver.node_capabilities()


async def test_a_volumes_life_with_every_call_repeated(driver: CsiDriver, staging: Path, target: Path) -> None:
    for _ in range(2):
        await driver.stage(PERSISTENT, staging)
    for _ in range(2):
        await driver.publish(PERSISTENT, target, staging_path=staging, read_only=False)
    assert len(mounts_at(target)) == len(mounts_at(staging)) == 1
    (target / "file").write_text("kept")
    found = await usages(driver, target)
    assert len(found) == 2 and all(usage.total for usage in found)
    for _ in range(2):
        await driver.unpublish(PERSISTENT.id, target)
    assert not target.exists()
    for _ in range(2):
        await driver.unstage(PERSISTENT.id, staging)
    assert not mounts_at(staging)
    await driver.stage(PERSISTENT, staging)
    assert (staging / "file").read_text() == "kept"


async def test_read_only_and_mount_flags(driver: CsiDriver, staging: Path, target: Path) -> None:
    volume = Volume("flags", AccessMode.SINGLE_NODE_WRITER, mount_flags=("noexec",), context={CREATE: "true"})
    await driver.stage(volume, staging)
    await driver.publish(volume, target, staging_path=staging, read_only=True)
    assert {"ro", "noexec"} <= set(mounts_at(target)[0].options)
    with pytest.raises(OSError, match="Read-only"):
        (target / "file").touch()
    with pytest.raises(CsiError) as caught:
        await driver.publish(volume, target, staging_path=staging, read_only=False)
    assert caught.value.code == "ALREADY_EXISTS"


async def test_a_flag_that_no_directory_knows_is_refused(driver: CsiDriver, staging: Path) -> None:
    volume = Volume("flags", AccessMode.SINGLE_NODE_WRITER, mount_flags=("subvol=7",), context={CREATE: "true"})
    with pytest.raises(CsiError, match="subvol=7"):
        await driver.stage(volume, staging)


async def test_an_unknown_volume_is_not_made_by_accident(driver: CsiDriver, staging: Path) -> None:
    with pytest.raises(CsiError, match=CREATE) as caught:
        await driver.stage(Volume("nobody-made-it", AccessMode.SINGLE_NODE_WRITER), staging)
    assert caught.value.code == "NOT_FOUND"
    assert not mounts_at(staging)


@pytest.mark.parametrize(
    ("mode", "places"),
    [
        (AccessMode.SINGLE_NODE_SINGLE_WRITER, 1),
        (AccessMode.SINGLE_NODE_WRITER, 1),
        (AccessMode.SINGLE_NODE_READER_ONLY, 1),
        (AccessMode.SINGLE_NODE_MULTI_WRITER, 2),
        (AccessMode.MULTI_NODE_MULTI_WRITER, 2),
    ],
)
async def test_how_many_places_an_access_mode_allows(
    driver: CsiDriver, staging: Path, target: Path, mode: AccessMode, places: int
) -> None:
    """CSI spec, NodePublishVolume, the table for SINGLE_NODE_MULTI_WRITER; ReadWriteOncePod stands on it."""
    volume, second = Volume("modes", mode, context={CREATE: "true"}), target.with_name("second")
    await driver.stage(volume, staging)
    for _ in range(2):
        await driver.publish(volume, target, staging_path=staging, read_only=False)
    if places == 1:
        with pytest.raises(CsiError, match=f"published at {target}") as caught:
            await driver.publish(volume, second, staging_path=staging, read_only=False)
        assert caught.value.code == "FAILED_PRECONDITION"
        assert not second.exists()
        await driver.unpublish(volume.id, target)
    await driver.publish(volume, second, staging_path=staging, read_only=False)
    assert mounts_at(second)


async def test_a_kubelet_root_that_is_a_link(driver: CsiDriver, short_path: Path, target: Path) -> None:
    (short_path / "link").symlink_to(short_path)
    staging, linked = short_path / "link/staging", short_path / "link/pod/mount"
    for _ in range(2):
        await driver.stage(PERSISTENT, staging)
        await driver.publish(PERSISTENT, linked, staging_path=staging, read_only=False)
        assert await usages(driver, linked)
    assert len(mounts_at(target)) == len(mounts_at(short_path / "staging")) == 1
    await driver.unpublish(PERSISTENT.id, linked)
    await driver.unstage(PERSISTENT.id, staging)
    assert not mounts_beneath(short_path)
    assert not target.exists()


async def test_publish_before_stage_is_refused(driver: CsiDriver, staging: Path, target: Path) -> None:
    await driver.stage(PERSISTENT, staging)
    await driver.unstage(PERSISTENT.id, staging)
    with pytest.raises(CsiError) as caught:
        await driver.publish(PERSISTENT, target, staging_path=staging, read_only=False)
    assert caught.value.code == "FAILED_PRECONDITION"
    assert not target.exists()


async def test_an_inline_volume_lives_as_long_as_it_is_published(
    driver: CsiDriver, process: DriverProcess, target: Path
) -> None:
    await driver.publish(INLINE, target, staging_path=None, read_only=False)
    (target / "file").write_text("gone soon")
    assert (process.data / "volumes" / INLINE.id / "data" / "file").exists()
    await driver.unpublish(INLINE.id, target)
    assert not target.exists()
    assert not list((process.data / "volumes").iterdir())


async def test_a_group_gets_the_volume(driver: CsiDriver, target: Path) -> None:
    volume = Volume("csi-g", AccessMode.SINGLE_NODE_WRITER, mount_group=4242, context={EPHEMERAL: "true"})
    await driver.publish(volume, target, staging_path=None, read_only=False)
    status = target.stat()
    assert status.st_gid == 4242
    assert status.st_mode & stat.S_ISGID


@pytest.mark.parametrize("hostile", ["../../../canary", "a/b", "..", ".new-1", "a..b/../c", "x" * 200, "a\nb", "é"])
async def test_volume_ids_that_are_paths_reach_nothing(
    driver: CsiDriver, process: DriverProcess, target: Path, staging: Path, hostile: str
) -> None:
    canary = process.root / "canary"
    canary.mkdir()
    (canary / "data").mkdir()
    volume = Volume(hostile, AccessMode.SINGLE_NODE_WRITER, context={EPHEMERAL: "true", CREATE: "true"})
    with pytest.raises(CsiError) as caught:
        await driver.publish(volume, target, staging_path=None, read_only=False)
    assert caught.value.code == "INVALID_ARGUMENT"
    with pytest.raises(CsiError):
        await driver.stage(volume, staging)
    await driver.unpublish(hostile, target)
    assert (canary / "data").is_dir()
    assert not mounts_beneath(process.root)
    assert not list((process.data / "volumes").iterdir())


async def test_paths_with_dots_are_refused(driver: CsiDriver, target: Path) -> None:
    with pytest.raises(CsiError, match="target_path"):
        await driver.publish(INLINE, Path(f"{target}/../../elsewhere"), staging_path=None, read_only=False)


async def test_a_foreign_mount_is_not_unmounted(driver: CsiDriver, target: Path, short_path: Path) -> None:
    foreign = short_path / "foreign"
    foreign.mkdir()
    target.mkdir()
    fd = mounts.bind(str(foreign))
    mountapi.move_mount_at(fd, str(target))
    os.close(fd)
    with pytest.raises(CsiError, match="no volume of this driver"):
        await driver.unpublish(INLINE.id, target)
    assert mounts_at(target)


async def test_a_published_volume_is_not_deleted_behind_its_users_back(
    driver: CsiDriver, process: DriverProcess, target: Path
) -> None:
    await driver.publish(INLINE, target, staging_path=None, read_only=False)
    (target / "file").write_text("precious")
    with pytest.raises(CsiError, match="still mounted"):
        await driver.unpublish(INLINE.id, target.with_name("other"))
    assert (target / "file").read_text() == "precious"


async def test_what_is_in_the_way_of_a_target_is_not_removed(driver: CsiDriver, target: Path) -> None:
    target.mkdir()
    (target / "file").write_text("of someone else")
    with pytest.raises(CsiError) as caught:
        await driver.unpublish(INLINE.id, target)
    assert caught.value.code == "FAILED_PRECONDITION"
    assert (target / "file").exists()


async def test_a_spoilt_document_is_an_error_and_spares_the_data(
    driver: CsiDriver, process: DriverProcess, staging: Path
) -> None:
    await driver.stage(PERSISTENT, staging)
    await driver.unstage(PERSISTENT.id, staging)
    volume = process.data / "volumes" / PERSISTENT.id
    (volume / "data" / "file").write_text("precious")
    (volume / "volume.json").write_text("{garbage")
    with pytest.raises(CsiError, match=r"volume\.json cannot be read"):
        await driver.stage(PERSISTENT, staging)
    assert (volume / "data" / "file").read_text() == "precious"


async def test_mounts_outlive_the_driver_and_are_known_again(
    driver: CsiDriver, process: DriverProcess, staging: Path, target: Path
) -> None:
    await driver.stage(PERSISTENT, staging)
    await driver.publish(PERSISTENT, target, staging_path=staging, read_only=False)
    (target / "file").write_text("x")
    process.kill()
    assert (target / "file").read_text() == "x"
    process.start()
    await driver.publish(PERSISTENT, target, staging_path=staging, read_only=False)
    assert len(mounts_at(target)) == 1
    await driver.unpublish(PERSISTENT.id, target)
    await driver.unstage(PERSISTENT.id, staging)
    assert not mounts_beneath(process.root)


@pytest.mark.parametrize("place", FAILPOINTS)
async def test_kill_at_every_step_then_the_same_call_again(
    process: DriverProcess, staging: Path, target: Path, place: str
) -> None:
    process.kill()
    process.start(f"{place}=kill")
    with pytest.raises(CsiError) as caught:
        await life(process, staging, target)
    assert caught.value.code == "UNAVAILABLE"
    assert process.wait() == -signal.SIGKILL
    process.start()
    await life(process, staging, target)
    assert not mounts_beneath(process.root)
    assert not target.exists()


async def life(process: DriverProcess, staging: Path, target: Path) -> None:
    client = CsiDriver(process.socket, process.name, work_timeout=5, patience=0.2)
    try:
        await client.stage(PERSISTENT, staging)
        await client.publish(PERSISTENT, target, staging_path=staging, read_only=False)
        await client.unpublish(PERSISTENT.id, target)
        await client.unstage(PERSISTENT.id, staging)
    finally:
        await client.close()


async def test_kill_between_unpublish_and_removal_of_an_inline_volume(process: DriverProcess, target: Path) -> None:
    process.kill()
    process.start("hostpath.unpublish.after_rmdir=kill")
    client = CsiDriver(process.socket, process.name, work_timeout=5, patience=1.5)
    await client.publish(INLINE, target, staging_path=None, read_only=False)
    with pytest.raises(CsiError):
        await client.unpublish(INLINE.id, target)
    assert list((process.data / "volumes").iterdir())
    process.wait()
    process.start()
    await client.unpublish(INLINE.id, target)
    await client.close()
    assert not list((process.data / "volumes").iterdir())


def test_it_stops_cleanly(process: DriverProcess) -> None:
    assert stat.S_IMODE(process.socket.stat().st_mode) == 0o600
    assert stat.S_IMODE(process.data.stat().st_mode) == 0o700
    assert process.stop() == 0
    assert not process.socket.exists()
    assert not process.registration_socket.exists()


def test_a_second_driver_with_the_same_sockets_is_refused(process: DriverProcess) -> None:
    done = subprocess.run(process.command(), capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 1
    assert "another process listens on" in done.stderr
    assert process.socket.exists()
    assert process.stop() == 0


def test_a_file_in_place_of_the_socket_is_left_alone(process: DriverProcess) -> None:
    assert process.stop() == 0
    process.socket.write_text("notes")
    done = subprocess.run(process.command(), capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 1
    assert "is no socket" in done.stderr
    assert process.socket.read_text() == "notes"
