"""hostPath: every type against every kind of file, and nothing of it ever removed."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from nodeagent.volumes.claims import ClaimIndex
from nodeagent.volumes.errors import VolumesError
from nodeagent.volumes.manager import VolumeManager
from tests.support.volume_documents import claim, claimed, pod, volume

KINDS = ("Directory", "File", "Socket", "CharDevice", "BlockDevice")


@pytest.fixture
def files(place: Path) -> dict[str, Path]:
    found = {kind: place / kind for kind in KINDS}
    found["Directory"].mkdir()
    found["File"].write_text("x")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(found["Socket"]))
    os.mknod(found["CharDevice"], 0o600 | stat.S_IFCHR, os.makedev(1, 3))
    os.mknod(found["BlockDevice"], 0o600 | stat.S_IFBLK, os.makedev(7, 250))
    return found


async def mounted(manager: VolumeManager, path: Path, kind: str) -> Path:
    source = {"name": "h", "hostPath": {"path": str(path), "type": kind}}
    return (await manager.mount(pod(source), ClaimIndex()))["h"].host_path


@pytest.mark.parametrize("kind", KINDS)
async def test_the_type_decides(manager: VolumeManager, files: dict[str, Path], kind: str) -> None:
    for there, path in files.items():
        if there == kind:
            assert await mounted(manager, path, kind) == path
        else:
            with pytest.raises(VolumesError, match=f"type {kind} wants"):
                await mounted(manager, path, kind)


@pytest.mark.parametrize(
    ("kind", "remedy"),
    [
        ("Directory", "use type DirectoryOrCreate"),
        ("File", "use type FileOrCreate"),
        ("Socket", "is its owner running"),
        ("CharDevice", "is its owner running"),
        ("BlockDevice", "is its owner running"),
    ],
)
async def test_a_missing_source_says_what_to_do(manager: VolumeManager, place: Path, kind: str, remedy: str) -> None:
    with pytest.raises(VolumesError, match=remedy):
        await mounted(manager, place / "missing", kind)
    assert not (place / "missing").exists()


async def test_directories_are_made_and_stay(manager: VolumeManager, place: Path) -> None:
    path = await mounted(manager, place / "a" / "b", "DirectoryOrCreate")
    (path / "file").write_text("precious")
    assert await mounted(manager, path, "DirectoryOrCreate") == path
    await manager.unmount("uid-1")
    assert (path / "file").read_text() == "precious"


async def test_files_are_made_and_stay(manager: VolumeManager, place: Path) -> None:
    path = await mounted(manager, place / "file", "FileOrCreate")
    path.write_text("precious")
    assert await mounted(manager, path, "FileOrCreate") == path
    await manager.unmount("uid-1")
    assert path.read_text() == "precious"


async def test_a_file_whose_directory_is_missing(manager: VolumeManager, place: Path) -> None:
    with pytest.raises(VolumesError, match="its directory does not exist"):
        await mounted(manager, place / "missing" / "file", "FileOrCreate")


async def test_without_a_type_nothing_is_looked_at(manager: VolumeManager, place: Path) -> None:
    assert await mounted(manager, place / "missing", "") == place / "missing"


async def test_a_claimed_host_path_is_read_only_if_the_pod_says_so(
    manager: VolumeManager, files: dict[str, Path]
) -> None:
    source = {"path": str(files["Directory"]), "type": "Directory"}
    index = ClaimIndex([volume(csi=None, hostPath=source), claim()])
    found = await manager.mount(pod(claimed(readOnly=True)), index)
    assert (found["data"].host_path, found["data"].read_only) == (files["Directory"], True)
