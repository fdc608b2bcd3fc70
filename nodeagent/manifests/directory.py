"""The manifest directory, watched: files in, a callback for every change of what is wanted.

inotify tells that a file was closed after writing, moved, linked or removed; its content is read once nothing has
happened to it for DEBOUNCE seconds, which also merges an editor's rename-and-create into one change. Nobody tells of
what happens behind a link, or on another machine that shares the directory: for that, files are looked at now and then.
What is never taken for an order to stop pods: a file that is broken or half written, a link to nothing, and a directory
that is gone as a whole.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path

from asyncinotify import Event, Inotify, Mask

from nodeagent.manifests.catalogue import Catalogue, FileProblem, Wanted
from nodeagent.manifests.documents import MAX_BYTES
from nodeagent.manifests.lastgood import LastGood
from nodeagent.manifests.looks import Looks
from runtime.linux.files import read_limited

log = logging.getLogger(__name__)

#: Seconds of quiet after which a changed file is read.
DEBOUNCE = 0.2
#: Seconds between two looks for a directory that is gone; inotify cannot wait for a path that does not exist.
AGAIN = 5.0
#: Seconds between two looks for what inotify did not tell.
LOOK = 20.0

SUFFIXES = (".yaml", ".yml", ".json")
_BACKUPS = ("~", ".swp", ".swx", ".tmp", ".bak", ".orig", ".rej", ".part", ".dpkg-old", ".dpkg-new", ".dpkg-dist")
_MASK = (
    Mask.CLOSE_WRITE | Mask.MOVED_TO | Mask.MOVED_FROM | Mask.DELETE | Mask.CREATE
    | Mask.DELETE_SELF | Mask.MOVE_SELF | Mask.ONLYDIR
)  # fmt: skip
_GONE = Mask.DELETE_SELF | Mask.MOVE_SELF | Mask.UNMOUNT | Mask.IGNORED


class ManifestDirectory:
    """`changed` is called in the event loop with all that is wanted, first once the directory was read."""

    def __init__(self, path: Path, catalogue: Catalogue, kept: LastGood, changed: Callable[[Wanted], None]) -> None:
        self.path = path
        self._catalogue = catalogue
        self._kept = kept
        self._changed = changed
        self._due: dict[str, float] = {}
        self._next_look = 0.0
        self._looks = Looks(path)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                with Inotify() as inotify:
                    inotify.add_watch(self.path, _MASK)
                    # After the watch is set, so that nothing falls between the two.
                    await self._scan()
                    await self._follow(inotify)
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.EACCES):
                    raise
                log.error("manifests: %s: %s; what runs goes on", self.path, os.strerror(error.errno))
                self._take_kept()
            await asyncio.sleep(AGAIN)

    async def _follow(self, inotify: Inotify) -> None:
        """Until the directory is gone."""
        async with _Reader(inotify) as reader:
            while True:
                event = await reader.next(self._pause())
                if event is None:
                    await self._read_due()
                    await self._look()
                elif event.mask & Mask.Q_OVERFLOW:
                    await self._scan()
                elif event.mask & _GONE:
                    log.error("manifests: %s is gone; what runs goes on", self.path)
                    return
                elif event.name is not None and _says_something(event, self.path / event.name):
                    self._due[os.fspath(event.name)] = time.monotonic() + DEBOUNCE

    def _pause(self) -> float:
        """Seconds until the next file, or the next look, is due."""
        return max(min([self._next_look, *self._due.values()]) - time.monotonic(), 0)

    async def _scan(self) -> None:
        self._due.clear()
        self._next_look = time.monotonic() + LOOK
        await self._read(await asyncio.to_thread(self._names))

    def _names(self) -> set[str]:
        """Of all files that there are or were. Raises OSError."""
        return set(os.listdir(self.path)) | self._catalogue.names() | self._kept.names()

    async def _look(self) -> None:
        if time.monotonic() < self._next_look:
            return
        self._next_look = time.monotonic() + LOOK
        changed = await asyncio.to_thread(self._changed_unheard)
        if changed := changed - self._due.keys():
            await self._read(changed)

    def _changed_unheard(self) -> set[str]:
        return self._looks.changed(name for name in self._names() if not _is_ignored(name)) | self._kept.owed

    async def _read_due(self) -> None:
        now = time.monotonic()
        ripe = {name for name, due in self._due.items() if due <= now}
        for name in ripe:
            del self._due[name]
        if ripe:
            await self._read(ripe)

    async def _read(self, names: set[str]) -> None:
        """Reading and parsing in a thread: a directory may hang, and a large file takes its time."""
        await asyncio.to_thread(self._take_all, sorted(names))
        self._changed(self._catalogue.wanted())

    def _take_kept(self) -> None:
        """The last good versions of all files, where nothing was read yet."""
        if self._catalogue.names() or not self._kept.names():
            return
        for name in self._kept.names():
            self._catalogue.put(name, self._kept.get(name) or b"")
        self._changed(self._catalogue.wanted())

    def _take_all(self, names: list[str]) -> None:
        for name in names:
            self._take(name)

    def _take(self, name: str) -> None:
        if _is_ignored(name):
            return
        self._looks.reads(name)
        try:
            data = _read_whole(self.path / name)
        except FileNotFoundError:
            return self._take_missing(name)
        except IsADirectoryError:
            return
        except OSError as error:
            return self._report_unread(name, error.strerror or str(error))
        if not name.endswith(SUFFIXES):
            problem = FileProblem(name, f"ignored: its name does not end in {', '.join(SUFFIXES)}", fatal=False)
            return self._catalogue.report(name, problem)
        self._put(name, data)

    def _take_missing(self, name: str) -> None:
        if os.path.lexists(self.path / name):
            return self._report_unread(name, "is a link to nothing; remove the link to end its pods")
        self._catalogue.drop(name)
        self._kept.forget(name)

    def _report_unread(self, name: str, why: str) -> None:
        self._recall(name)
        self._catalogue.report(name, FileProblem(name, why))

    def _put(self, name: str, data: bytes) -> None:
        self._recall(name)
        if self._catalogue.put(name, data):
            self._kept.keep(name, data)

    def _recall(self, name: str) -> None:
        """The version that ran before this process started; it counts if the file cannot be used now."""
        if name not in self._catalogue.names() and (before := self._kept.get(name)) is not None:
            self._catalogue.put(name, before)


class _Reader:
    """Reads events with a deadline, and loses none to it: the read under way is waited for, never cancelled."""

    def __init__(self, inotify: Inotify) -> None:
        self._inotify = inotify
        self._read: asyncio.Task[Event] | None = None

    async def __aenter__(self) -> _Reader:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._read is not None:
            self._read.cancel()
            await asyncio.wait({self._read})

    async def next(self, pause: float | None) -> Event | None:
        """The next event, or None when `pause` seconds went by without one."""
        self._read = self._read or asyncio.ensure_future(self._inotify.get())
        await asyncio.wait({self._read}, timeout=pause)
        if not self._read.done():
            return None
        event, self._read = self._read.result(), None
        return event


def _says_something(event: Event, path: Path) -> bool:
    """A file that was only just created is empty still; its CLOSE_WRITE follows. A link is whole when it appears."""
    if not event.mask & Mask.CREATE:
        return True
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return True
    return stat.S_ISLNK(status.st_mode) or status.st_nlink > 1


def _is_ignored(name: str) -> bool:
    return name.startswith((".", "#")) or name.endswith(_BACKUPS) or "\n" in name


def _read_whole(path: Path) -> bytes:
    """A file that is the same before and after it was read. Raises OSError (EAGAIN while somebody writes it)."""
    before = os.stat(path)
    if stat.S_ISDIR(before.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    data = read_limited(path, MAX_BYTES)
    after = os.stat(path)
    if (before.st_ino, before.st_mtime_ns, before.st_size) != (after.st_ino, after.st_mtime_ns, len(data)):
        raise OSError(errno.EAGAIN, "is being written; read again when it is closed", str(path))
    return data
