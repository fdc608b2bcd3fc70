"""Rotation: a log that has grown too large is renamed, the runtime opens a new one, older ones are compressed.

    <n>.log  ->  <n>.log.<time>  ->  <n>.log.<time>.gz  ->  removed

No line is lost: the runtime writes to the renamed file until it has opened the new one, and only files that were
renamed in an earlier round are compressed (pkg/kubelet/logs has the same rule). Sizes are looked at now and then,
since to be told of every write (inotify) costs more than it saves.
"""

from __future__ import annotations

import asyncio
import gzip
import logging
import os
import shutil
import time
from pathlib import Path

from cri.client import CriClient, CriError
from cri.proto import api_pb2
from nodeagent.logs.opening import open_log
from nodeagent.translate import marks
from runtime.linux.files import sync_directory

log = logging.getLogger(__name__)

#: Seconds between two looks.
EVERY = 10.0
#: Seconds for what the runtime says or does of one container: it reads nothing but memory, and opens one file.
PATIENCE = 10.0
_TEMPORARY = ".tmp"


class LogRotation:
    """`limit` in bytes; `files` counts the one being written."""

    def __init__(self, cri: CriClient, node: str, limit: int, files: int) -> None:
        self._cri = cri
        self._node = node
        self._limit = limit
        self._files = files
        self._paths: dict[str, Path] = {}

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(EVERY)
            try:
                await self.once()
            except (CriError, OSError) as error:
                log.warning("logs: %s", error)

    async def once(self) -> None:
        """Every running container of this node. Raises CriError, OSError."""
        answer = await self._cri.ListContainers(
            filter=api_pb2.ContainerFilter(
                state=api_pb2.ContainerStateValue(state=api_pb2.CONTAINER_RUNNING),
                label_selector={marks.NODE: self._node},
            )
        )
        running = {container.id for container in answer.containers}
        self._paths = {id: path for id, path in self._paths.items() if id in running}
        for id in running:
            try:
                await self._look_at(id)
            except (CriError, OSError) as error:  # what is wrong with one pod or its logs is not the others' loss
                log.warning("logs: %s is not rotated: %s", self._paths.get(id, f"that of container {id[:13]}"), error)

    async def _look_at(self, id: str) -> None:
        path = await self._path(id)
        if path is not None and _size(path) > self._limit:
            await self._rotate(id, path)

    async def _path(self, id: str) -> Path | None:
        if id not in self._paths:
            try:
                answer = await self._cri.ContainerStatus(container_id=id, timeout=PATIENCE)
            except CriError as error:
                if error.code == "NOT_FOUND":
                    return None
                raise
            if not answer.status.log_path:
                return None
            self._paths[id] = Path(answer.status.log_path)
        return self._paths[id]

    async def _rotate(self, id: str, path: Path) -> None:
        await asyncio.to_thread(tidy, path, self._files - 2)
        renamed = path.with_name(f"{path.name}.{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}")
        os.rename(path, renamed)
        try:
            await self._cri.ReopenContainerLog(container_id=id, timeout=PATIENCE)
        except CriError:
            _put_back(renamed, path)
            raise


def _put_back(renamed: Path, path: Path) -> None:
    """The log goes on under its old name, so that nobody loses it; unless the runtime made a new one after all."""
    if not path.exists():
        renamed.rename(path)


def tidy(path: Path, keep: int) -> None:
    """Compress all rotated files of a log and remove the oldest, so that `keep` stay. Raises OSError."""
    for left in path.parent.glob(f"{path.name}.*{_TEMPORARY}"):
        left.unlink(missing_ok=True)
    there = rotated(path)
    surplus = max(len(there) - keep, 0)
    for each in there[:surplus]:
        each.unlink(missing_ok=True)
    for each in there[surplus:]:
        if each.is_symlink() or not each.is_file():
            each.unlink()  # nobody here has made that
        elif each.suffix != ".gz":
            _compress(each)


def _compress(path: Path) -> None:
    whole = path.with_name(path.name + ".gz")
    temporary = path.with_name(path.name + _TEMPORARY)
    with open_log(path) as source:
        mode = os.fstat(source.fileno()).st_mode & 0o777
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
        with os.fdopen(fd, "wb") as file:
            os.fchmod(fd, mode)
            with gzip.open(file, "wb", compresslevel=6) as target:
                shutil.copyfileobj(source, target, 1 << 20)
            file.flush()
            os.fsync(fd)
    temporary.rename(whole)
    # Only now would the lines survive a power cut without the file that they came from.
    sync_directory(path.parent)
    path.unlink()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def rotated(path: Path) -> list[Path]:
    """The rotated files of a log, oldest first."""
    return sorted(each for each in path.parent.glob(f"{path.name}.*") if each.suffix != _TEMPORARY)
