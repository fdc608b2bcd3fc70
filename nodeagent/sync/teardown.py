"""What is left of a pod when its containers are gone: volumes and files. Tried again until it works.

It keeps nobody waiting: a driver that is gone holds up the volumes of a dead pod, not the pod that follows it.

What is undone is found by the pod's uid. Manifests may fix that, and one that is renamed gives it to a pod of another
name, of another worker: so a worker holds the uid of what it makes or ends, until the undoing has begun.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

from nodeagent.pods.pod import Key
from nodeagent.sync.backoff import Backoff
from nodeagent.sync.journal import Journal
from nodeagent.sync.observed import SECOND
from nodeagent.sync.pod_files import PodFiles
from nodeagent.volumes.errors import VolumesError
from nodeagent.volumes.manager import VolumeManager
from runtime.linux.failpoints import failpoint

#: Seconds.
PATIENCE = 10.0


class Teardown:
    """One task for each pod that is gone; it ends when nothing of the pod is left."""

    def __init__(self, volumes: VolumeManager, files: PodFiles, journal: Journal) -> None:
        self._volumes = volumes
        self._files = files
        self._journal = journal
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._holders: dict[str, Key] = {}

    @property
    def pending(self) -> set[str]:
        """Uids of pods that still have volumes or files on the node."""
        return set(self._tasks)

    def hold(self, key: Key, uid: str) -> bool:
        """Whether the uid is that pod's, until its undoing begins; False while another has it."""
        return self._holders.setdefault(uid, key) == key

    def begin_all_but(self, key: Key, uid: str) -> None:
        """For uids that the pod of that name held before, and of which no sandbox is left, or never was."""
        for other in [each for each, holder in self._holders.items() if holder == key and each != uid]:
            self.begin(key, other)

    def begin(self, key: Key, uid: str) -> None:
        self._holders.pop(uid, None)
        running = self._tasks.pop(uid, None)
        if running is not None:
            running.cancel()
        self._add(uid, self._until_done(key, uid, with_files=True))

    def begin_volumes(self, key: Key, uid: str) -> None:
        """For a pod that is over and stays to be looked at: its files, its logs among them, stay too."""
        if uid not in self._tasks:
            self._add(uid, self._until_done(key, uid, with_files=False))

    async def call_off(self, uid: str) -> None:
        """The same pod is wanted again. What can be undone at once is undone first: it is to start afresh."""
        task = self._tasks.get(uid)
        if task is not None:
            await asyncio.wait({task}, timeout=PATIENCE)
            await _cancelled(self._tasks.pop(uid, None))

    async def close(self) -> None:
        for uid in list(self._tasks):
            await _cancelled(self._tasks.pop(uid, None))

    def _add(self, uid: str, work: Coroutine[Any, Any, None]) -> None:
        task = self._tasks[uid] = asyncio.create_task(work, name=f"teardown {uid}")
        task.add_done_callback(lambda done: self._forget(uid, done))

    async def _until_done(self, key: Key, uid: str, *, with_files: bool) -> None:
        backoff = Backoff(first=1.0)
        while True:
            try:
                await self._volumes.unmount(uid)
                failpoint("agent.teardown.after_volumes")
                if with_files:
                    await _to_its_end(self._files.remove, uid)
                return
            except (VolumesError, OSError) as error:
                self._journal.warn(key, "FailedUnmount", f"of the pod that was {uid}: {error}")
            until = backoff.failed(time.time_ns())
            await asyncio.sleep(max(until - time.time_ns(), 0) / SECOND)

    def _forget(self, uid: str, done: asyncio.Task[None]) -> None:
        if self._tasks.get(uid) is done:
            del self._tasks[uid]


async def _to_its_end(work: Callable[[str], None], uid: str) -> None:
    """In a thread. Whoever is cancelled meanwhile ends after it, so that it does not undo what comes next."""
    running = asyncio.ensure_future(asyncio.to_thread(work, uid))
    try:
        await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait({running})
        raise


async def _cancelled(task: asyncio.Task[None] | None) -> None:
    if task is not None:
        task.cancel()
        await asyncio.wait({task})
