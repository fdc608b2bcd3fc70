"""Archives that CRIU would obey: what their processes would open and be, beyond what is the container's own.

Those of a container without root are made of another's: a criu without CAP_SYS_RESOURCE can take down root's only.
"""

from __future__ import annotations

import asyncio
import os
import stat
import tarfile
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from cri.client import CriError
from cri.proto import api_pb2 as api
from cri.server.checkpoint.archive import unpack_archive
from cri.server.checkpoint.holdings import inspect_holdings
from cri.server.errors import InvalidRequest
from images.changes import write_changes
from images.errors import TooLarge
from runtime.linux.mounttable import mounts
from tests.cri.test_checkpoints import OWN_PIDS, checkpoint, read, rewritten
from tests.support.crid import Crid
from tests.support.criu_images import amended, changed, value_of
from tests.support.images import busybox_rootfs, push_image
from tests.support.registry import Registry

LINK = "ln -s /proc/self/fd/126/../../../../../.. /link"
BAIT = f"{LINK}; echo x > /bait; exec 5</bait; echo ready; while :; do sleep 0.1; done"
FILES = "checkpoint/files.img"
# Fields by their numbers: of a file_entry, and of a core_entry (https://github.com/checkpoint-restore/criu, images/).
FLAGS, NAME, SIZE, MODE = [3, 2], [3, 6], [3, 8], [3, 10]
NICE, GROUPS = [5, 3], [5, 10, 14]
GIDS, UIDS = [[5, 10, field] for field in (2, 4, 6, 8)], [[5, 10, field] for field in (1, 3, 5, 7)]
NOBODY = {
    "run_as_user": {"value": 65534},
    "run_as_group": {"value": 65534},
    "namespace_options": {"pid": api.CONTAINER},
}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def daemon(checkpointing: Crid) -> Crid:
    return checkpointing


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def busybox(daemon: Crid, registry: Registry) -> str:
    pushed = push_image(registry, "baited:1", [busybox_rootfs()], {"Cmd": ["sh"]})
    await daemon.cri.PullImage(image={"image": pushed.ref})
    return pushed.ref


async def archive_of(crid: Crid, image: str, script: str = BAIT, **fields: Any) -> Path:
    """The archive of a container that has said "ready"."""
    pod = await crid.run_pod(linux=OWN_PIDS)
    id = await crid.run(pod, image, ["sh", "-c", script], **fields)
    async with asyncio.timeout(10):
        while "ready" not in crid.log_of(pod[1]):  # noqa: ASYNC110 - a file tells it
            await asyncio.sleep(0.02)
    return await checkpoint(crid, id)


def reopened(archive: Path, name: str, flags: int = os.O_RDONLY) -> Path:
    """The same archive, in which /bait is another file."""

    def change(entry: bytes) -> bytes:
        if not value_of(entry, NAME).endswith(b"/bait"):
            return entry
        for field, value in ((NAME, name.encode()), (FLAGS, flags), (SIZE, None), (MODE, None)):
            entry = amended(entry, field, value)
        return entry

    return rewritten(archive, {FILES: changed(read(archive, FILES), change)})


async def refused(crid: Crid, archive: Path, words: str, **fields: Any) -> None:
    """It does not come to life, for this reason."""
    pod = await crid.run_pod(linux=OWN_PIDS)
    id = await crid.create(pod, str(archive), [], **fields)
    with pytest.raises(CriError, match=words):
        await crid.cri.StartContainer(container_id=id)
    assert (await crid.status(id)).state == api.CONTAINER_EXITED


OUTSIDE = {
    "a descriptor of CRIU's": ("/proc/self/fd/126/../../../../../..{canary}", os.O_RDONLY, "no name of an open file"),
    "one without dots": ("/proc/self/fd/126", os.O_RDONLY, "a link to somewhere else"),
    "a path from the root": ("/{canary}", os.O_RDONLY, "no name of an open file"),
    "the root of another process": ("/proc/1/root{canary}", os.O_RDONLY, "a link to somewhere else"),
    "through a link": ("/link{canary}", os.O_RDONLY, "Too many levels of symbolic links"),
    "emptied": ("/etc/hosts", os.O_RDWR | os.O_TRUNC, "in a way that changes it"),
    "made": ("/new", os.O_RDWR | os.O_CREAT, "in a way that changes it"),
}


async def test_files_of_an_archive_are_the_containers(crid: Crid, busybox: str, tmp_path: Path) -> None:
    """CRIU opens them by name, as root: a restored process had any file of the host through CRIU's own descriptors."""
    canary = tmp_path / "canary"
    canary.write_text("of the host\n")
    archive = await archive_of(crid, busybox)
    for name, flags, words in OUTSIDE.values():
        await refused(crid, reopened(archive, name.replace("{canary}", str(canary)), flags), words)
    assert canary.read_text() == "of the host\n"


def of_nobody(archive: Path, *changes: tuple[list[int], int | bytes | None]) -> Path:
    """The same archive with processes of user and group 65534, and these changes of each thread."""
    own = [(path, 65534) for path in (*UIDS, *GIDS)]

    def change(core: bytes) -> bytes:
        for path, value in [*own, (GROUPS, None), *changes]:
            core = amended(core, path, value)
        return core

    with tarfile.open(archive) as tar:
        cores = [name for name in tar.getnames() if name.startswith("checkpoint/core-")]
    images: dict[str, Any] = {name: changed(read(archive, name), change) for name in cores}
    return rewritten(archive, images).rename(archive.with_name("nobodys.tar"))


async def test_files_of_an_archive_are_such_as_its_user_may_open(crid: Crid, busybox: str, tmp_path: Path) -> None:
    """CRIU is root, also where the container's user is not."""
    tmp_path.chmod(0o755)
    for name, mode in (("bait", 0o644), ("secret", 0o600)):
        (tmp_path / name).write_text("of root\n")
        (tmp_path / name).chmod(mode)
    mounts = [{"host_path": str(tmp_path), "container_path": "/v"}]
    script = "exec 5</v/bait; echo ready; while :; do sleep 0.1; done"
    archive = of_nobody(await archive_of(crid, busybox, script, mounts=mounts))
    fields = {"linux": {"security_context": NOBODY}, "mounts": mounts}
    await refused(crid, reopened(archive, "/v/secret"), "which its user may not open", **fields)
    await refused(crid, reopened(archive, "/v/bait", os.O_RDWR), "which its user may not open", **fields)
    id = await crid.run(await crid.run_pod(linux=OWN_PIDS), str(archive), [], **fields)
    assert "Uid:\t65534\t65534" in Path(f"/proc/{await crid.pid_of(id)}/status").read_text()


MINUS_ONE = 1  # zigzag
POWERS: tuple[tuple[str, list[tuple[list[int], int | bytes | None]]], ...] = (
    ("come before others on the processor", [(NICE, MINUS_ONE)]),
    ("in groups that the container's are not", [(GROUPS, 42)]),
    ("in groups that the container's are not", [(path, 42) for path in GIDS]),
    ("of another user than 65534", [(path, 0) for path in UIDS]),
)


async def test_processes_of_an_archive_are_the_containers(crid: Crid, busybox: str) -> None:
    """What a start would not have made them, nor have let them become."""
    archive = await archive_of(crid, busybox, "echo ready; while :; do sleep 0.1; done")
    for words, changes in POWERS:
        await refused(crid, of_nobody(archive, *changes), words, linux={"security_context": NOBODY})


async def test_a_restored_container_is_as_likely_to_be_killed_for_memory(crid: Crid, busybox: str) -> None:
    archive = await archive_of(crid, busybox)
    linux = {"resources": {"oom_score_adj": 900}}
    id = await crid.run(await crid.run_pod(linux=OWN_PIDS), str(archive), [], linux=linux)
    assert Path(f"/proc/{await crid.pid_of(id)}/oom_score_adj").read_text() == "900\n"


async def test_descriptors_of_criu_stay_with_criu(crid: Crid, busybox: str) -> None:
    archive = await archive_of(crid, busybox)
    id = await crid.run(await crid.run_pod(linux=OWN_PIDS), str(archive), [])
    fds = {fd.name: os.readlink(fd) for fd in Path(f"/proc/{await crid.pid_of(id)}/fd").iterdir()}
    assert set(fds) == {"0", "1", "2", "5"} and fds["5"] == "/bait"


async def test_what_a_process_has_open_is_of_its_mounts(tmp_path: Path) -> None:
    """The second look, at what somebody has put in the way of the names since the first."""
    (tmp_path / "file").write_text("x")
    with (tmp_path / "file").open() as file:
        status = os.fstat(file.fileno())
        found = mounts()
        inspect_holdings(os.getpid(), found)
        device = f"{os.major(status.st_dev)}:{os.minor(status.st_dev)}"
        assert stat.S_ISREG(status.st_mode)
        with pytest.raises(InvalidRequest, match="opens a file outside of the container"):
            inspect_holdings(os.getpid(), [mount for mount in found if mount.device != device])


async def test_a_header_without_end_is_not_read(tmp_path: Path) -> None:
    """Eight GiB of extended header were eight GiB of the daemon's memory."""
    entry = tarfile.TarInfo("config.dump")
    entry.type, entry.size = tarfile.XHDTYPE, 8 << 30
    with (tmp_path / "archive").open("w+b") as file:
        file.write(entry.tobuf(tarfile.GNU_FORMAT))
        file.truncate(9 << 30)
        with pytest.raises(InvalidRequest, match="an extended header of 8589934592 bytes"):
            file.seek(0)
            unpack_archive(file.fileno(), tmp_path, tmp_path, 1 << 40)


async def test_a_hole_is_not_written(tmp_path: Path) -> None:
    """The node's disk would be full before anybody had asked how large the file was."""
    (tmp_path / "upper").mkdir()
    with (tmp_path / "upper/hole").open("wb") as file:
        file.truncate(1 << 40)
    with (tmp_path / "layer").open("wb") as out, pytest.raises(TooLarge, match="more than 1048576 bytes"):
        write_changes(tmp_path / "upper", out, 1 << 20)
    assert (tmp_path / "layer").stat().st_size < 1 << 20
