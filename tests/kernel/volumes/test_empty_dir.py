"""emptyDir on real mounts: made for everybody in the pod, kept over a restart, and removed without harm to others."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from nodeagent.volumes.claims import ClaimIndex
from nodeagent.volumes.empty_dir import UNFINISHED
from nodeagent.volumes.errors import VolumesError
from nodeagent.volumes.manager import VolumeManager
from runtime.linux import mountapi, mounts
from runtime.linux.ledger import Ledger
from runtime.linux.mounttable import mounts_at, mounts_beneath, unmount_beneath
from tests.support.volume_documents import pod

NO_CLAIMS = ClaimIndex()
PLAIN = {"name": "plain", "emptyDir": {}}
MEMORY = {"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}


async def test_both_media(manager: VolumeManager, ledger: Ledger) -> None:
    found = await manager.mount(pod(PLAIN, MEMORY), NO_CLAIMS)
    plain, memory = found["plain"].host_path, found["memory"].host_path
    assert plain == manager.layout.root / "pods/uid-1/volumes/kubernetes.io~empty-dir/plain"
    assert [stat.S_IMODE(path.stat().st_mode) for path in (plain, memory)] == [0o777, 0o777]
    assert [mount.fstype for mount in mounts_at(memory)] == ["tmpfs"]
    with pytest.raises(OSError, match="No space left"):
        (memory / "big").write_bytes(bytes(2 << 20))
    (plain / "file").write_text("x")
    await manager.unmount("uid-1")
    assert not list(manager.layout.pods.iterdir())
    assert ledger.entries() == []


async def test_other_users_of_the_node_have_no_way_in(manager: VolumeManager) -> None:
    found = await manager.mount(pod(PLAIN), NO_CLAIMS)
    path = found["plain"].host_path
    above = path.relative_to(manager.layout.root).parents
    modes = [stat.S_IMODE((manager.layout.root / each).stat().st_mode) for each in list(above)[:-1]]
    assert all(mode & 0o007 == 0 for mode in modes)


async def test_content_stays_when_mounted_again(manager: VolumeManager) -> None:
    found = await manager.mount(pod(PLAIN, MEMORY), NO_CLAIMS)
    for volume in found.values():
        (volume.host_path / "file").write_text("kept")
    again = await manager.mount(pod(PLAIN, MEMORY), NO_CLAIMS)
    assert [(volume.host_path / "file").read_text() for volume in again.values()] == ["kept", "kept"]
    assert len(mounts_at(again["memory"].host_path)) == 1


async def test_a_memory_volume_after_a_reboot(manager: VolumeManager) -> None:
    found = await manager.mount(pod(MEMORY), NO_CLAIMS)
    unmount_beneath(found["memory"].host_path)
    found = await manager.mount(pod(MEMORY), NO_CLAIMS)
    assert mounts_at(found["memory"].host_path)


async def test_the_pods_group_owns_it(manager: VolumeManager) -> None:
    found = await manager.mount(pod(PLAIN, MEMORY, securityContext={"fsGroup": 4242}), NO_CLAIMS)
    for volume in found.values():
        status = volume.host_path.stat()
        assert status.st_gid == 4242
        assert status.st_mode & stat.S_ISGID


async def test_what_a_container_has_made_of_its_directory_stays(manager: VolumeManager) -> None:
    document = pod(PLAIN, MEMORY, securityContext={"fsGroup": 4242})
    paths = [volume.host_path for volume in (await manager.mount(document, NO_CLAIMS)).values()]
    for path in paths:
        os.chown(path, 999, 999)
        path.chmod(0o700)
    await manager.mount(document, NO_CLAIMS)
    found = [(each.st_uid, each.st_gid, stat.S_IMODE(each.st_mode)) for each in (path.stat() for path in paths)]
    assert found == [(999, 999, 0o700)] * 2


async def test_a_directory_that_a_crash_left_unfinished_is_finished(manager: VolumeManager) -> None:
    document = pod(PLAIN, MEMORY, securityContext={"fsGroup": 4242})
    paths = [volume.host_path for volume in (await manager.mount(document, NO_CLAIMS)).values()]
    for path in paths:
        os.chown(path, 0, 0)
        path.chmod(UNFINISHED)
    await manager.mount(document, NO_CLAIMS)
    found = [(each.st_gid, stat.S_IMODE(each.st_mode)) for each in (path.stat() for path in paths)]
    assert found == [(4242, 0o2777)] * 2


async def test_a_mount_inside_is_unmounted_and_its_files_live(manager: VolumeManager, place: Path) -> None:
    canary = place / "canary"
    canary.mkdir()
    (canary / "file").write_text("precious")
    inner = (await manager.mount(pod(PLAIN), NO_CLAIMS))["plain"].host_path / "inner"
    inner.mkdir()
    bind(canary, inner)
    await manager.unmount("uid-1")
    assert (canary / "file").read_text() == "precious"
    assert not mounts_beneath(manager.layout.root)
    assert not inner.parent.exists()


async def test_a_busy_mount_inside_stops_the_removal_until_it_is_free(
    manager: VolumeManager, place: Path, ledger: Ledger
) -> None:
    canary = place / "canary"
    canary.mkdir()
    (canary / "file").write_text("precious")
    path = (await manager.mount(pod(PLAIN), NO_CLAIMS))["plain"].host_path
    (path / "mine").write_text("x")
    inner = path / "inner"
    inner.mkdir()
    bind(canary, inner)
    with (inner / "file").open():
        with pytest.raises(VolumesError, match=r'volume "plain".*busy'):
            await manager.unmount("uid-1")
        assert (path / "mine").exists()
        assert manager.pending == {"uid-1"}
        assert ledger.entries(holder="uid-1")
    await manager.unmount("uid-1")
    assert manager.pending == frozenset()
    assert not path.exists()
    assert (canary / "file").read_text() == "precious"


async def test_unmounting_what_never_was(manager: VolumeManager) -> None:
    await manager.unmount("nobody")


async def test_a_link_in_place_of_the_volume_is_not_followed(manager: VolumeManager, place: Path) -> None:
    path = (await manager.mount(pod(PLAIN), NO_CLAIMS))["plain"].host_path
    canary = place / "canary"
    canary.mkdir()
    (canary / "file").touch()
    path.rmdir()
    path.symlink_to(canary)
    with pytest.raises(VolumesError):
        await manager.unmount("uid-1")
    assert (canary / "file").exists()
    with pytest.raises(VolumesError):
        await manager.mount(pod(PLAIN), NO_CLAIMS)
    path.unlink()
    await manager.unmount("uid-1")


async def test_what_another_agent_left_is_reported_and_stays(manager: VolumeManager) -> None:
    strange = manager.layout.pods / "old-uid/volumes/kubernetes.io~empty-dir/data"
    strange.mkdir(parents=True)
    (strange / "file").write_text("precious")
    found = await manager.mount(pod(PLAIN), NO_CLAIMS)
    result = await manager.reconcile([])
    assert result.strangers == [strange]
    assert (strange / "file").read_text() == "precious"
    assert result.undone == ["pod uid-1"]
    assert not found["plain"].host_path.exists()


async def test_known_pods_are_left_alone(manager: VolumeManager) -> None:
    found = await manager.mount(pod(PLAIN, MEMORY), NO_CLAIMS)
    result = await manager.reconcile(["uid-1"])
    assert (result.undone, result.left, result.strangers) == ([], {}, [])
    assert all(volume.host_path.is_dir() for volume in found.values())


def bind(source: Path, target: Path) -> None:
    fd = mounts.bind(str(source))
    try:
        mountapi.move_mount_at(fd, str(target))
    finally:
        os.close(fd)
