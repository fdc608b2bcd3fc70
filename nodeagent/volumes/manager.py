"""The volumes of all pods: mounted when a pod needs them, unmounted when it is gone, found again after a crash.

    mount(pod, claims)   every volume of a pod, side by side; what fails is undone, what works stays for the next try
    unmount(uid)         everything that the ledger has for a pod; what fails is tried again until it works
    reconcile(uids)      at start: unmount the pods that nobody knows any more, unstage what no pod uses

Only what stands in the ledger is ever undone: directories that another agent has left below the same root are reported
and left alone, since they are somebody's data.
"""

from __future__ import annotations

import asyncio
import os
import weakref
from collections.abc import Awaitable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from csi.client.driver import WORK_TIMEOUT
from nodeagent.volumes import empty_dir, host_path
from nodeagent.volumes.claims import ClaimIndex
from nodeagent.volumes.csi_volume import DRIVER_FAILURES, CsiVolumes, InUse
from nodeagent.volumes.deadline import LOCAL, within
from nodeagent.volumes.drivers import Drivers
from nodeagent.volumes.errors import VolumeError, VolumesError
from nodeagent.volumes.layout import EMPTY_DIR, Layout
from nodeagent.volumes.plan import EmptyDir, HostPath, Planned, plan
from nodeagent.volumes.recovery import Leftovers, Reconciled
from runtime.linux.database import DatabaseError
from runtime.linux.ledger import Effect, Ledger

#: What a volume can fail of; anything else is a fault of ours and goes up as it is.
FAILURES = (*DRIVER_FAILURES, InUse, host_path.NotAsPromised, DatabaseError)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class MountedVolume:
    """Where a container finds the volume on the node."""

    host_path: Path
    read_only: bool = False


class VolumeManager:
    """To be made and used within one event loop. `drivers` takes the CSIPlugin registrations of a PluginWatcher."""

    def __init__(self, kubelet_root: Path, ledger: Ledger, *, work_timeout: float = WORK_TIMEOUT) -> None:
        """`work_timeout`: seconds for one call of a driver that mounts or unmounts."""
        self.layout = Layout(kubelet_root)
        self.drivers = Drivers(self.layout.registry, work_timeout=work_timeout)
        self._ledger = ledger
        self._csi = CsiVolumes(self.layout, ledger, self.drivers)
        self._pods: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()
        self._leftovers = Leftovers(self.layout, self._csi, self._unmount_again)
        self.drivers.on_registered = self._leftovers.try_soon

    async def close(self) -> None:
        """Volumes stay as they are."""
        await self._leftovers.close()
        await self.drivers.close()

    @property
    def pending(self) -> frozenset[str]:
        """Uids of pods whose volumes could not be unmounted yet."""
        return frozenset(self._leftovers.pods)

    def _lock(self, uid: str) -> asyncio.Lock:
        return self._pods.setdefault(uid, asyncio.Lock())

    async def mount(self, pod: Mapping[str, Any], claims: ClaimIndex) -> dict[str, MountedVolume]:
        """All volumes of a v1.Pod by name; may be repeated, and is cheap then. Raises VolumesError."""
        uid = pod["metadata"]["uid"]
        planned = plan(pod, claims)
        async with self._lock(uid):
            self._leftovers.discard(uid)
            found = await asyncio.gather(
                *(_named(volume.name, self._mount(volume, uid)) for volume in planned), return_exceptions=True
            )
        return dict(zip((volume.name for volume in planned), _all_or_raise(found), strict=True))

    async def _mount(self, volume: Planned, uid: str) -> MountedVolume:
        if isinstance(volume, EmptyDir):
            return MountedVolume(await empty_dir.mount(volume, uid, self.layout, self._ledger))
        if isinstance(volume, HostPath):
            return MountedVolume(await host_path.mount(volume), volume.read_only)
        return MountedVolume(await self._csi.mount(volume, uid), volume.read_only)

    async def unmount(self, pod_uid: str) -> None:
        """Undo all volumes of a pod whose containers are gone; one that has none is no error.

        Raises VolumesError with those that could not be undone; they are retried in the background, so the caller may
        go on. Emptied directories of the pod go too, its others are not this manager's.
        """
        try:
            async with self._lock(pod_uid):
                await self._unmount(pod_uid)
        except VolumesError as error:
            self._leftovers.add(pod_uid, error)
            raise
        self._leftovers.discard(pod_uid)

    async def _unmount(self, uid: str) -> None:
        work: list[Awaitable[None]] = []
        for entry in self._entries(uid):
            if entry.kind == "volume":
                work.append(_named(entry.detail["volume"], self._csi.unmount(entry)))
            elif entry.kind == "dir" and Path(entry.key).parent.name == EMPTY_DIR:
                work.append(_named(entry.detail["volume"], empty_dir.unmount(Path(entry.key), self._ledger)))
        _all_or_raise(await asyncio.gather(*work, return_exceptions=True))
        await within(LOCAL, _remove_empty, self.layout.volumes(uid))
        self._ledger.strike(self.layout.effect(uid))

    def _entries(self, uid: str) -> list[Effect]:
        """The ledger's volumes of a pod, without what other parts of the agent have for it."""
        top = str(self.layout.volumes(uid))
        entries = self._ledger.entries(holder=uid)
        return [entry for entry in entries if entry.key == top or entry.key.startswith(f"{top}/")]

    async def _unmount_again(self, uid: str) -> None:
        """For a pod that was to be unmounted some time ago; it may have come back since."""
        async with self._lock(uid):
            if uid in self._leftovers.pods:
                await self._unmount(uid)

    async def reconcile(self, known_pod_uids: Iterable[str]) -> Reconciled:
        """Undo what none of these pods needs, after a start of the agent: unmount the others, unstage what is unused.

        What fails is in the answer, and is tried again in the background. A driver that hangs delays the answer by its
        deadlines (and nothing else), so a caller in a hurry does not wait for it.
        """
        known = set(known_pod_uids)
        ours = {entry.holder for entry in self._ledger.entries("dir") if entry.holder and self._entries(entry.holder)}
        return await self._leftovers.reconcile(ours - known, ours | known)


async def _named(name: str, work: Awaitable[T]) -> T:
    """The work's outcome; a failure of any kind names the volume."""
    try:
        return await work
    except FAILURES as error:
        words = "; ".join([str(error), *getattr(error, "__notes__", [])])
        raise VolumeError(name, words) from error


def _all_or_raise(found: Iterable[T | BaseException]) -> list[T]:
    """The results, if all are there; a VolumesError of all failures otherwise."""
    results: list[T] = []
    errors: list[VolumeError] = []
    for each in found:
        if isinstance(each, VolumeError):
            errors.append(each)
        elif isinstance(each, BaseException):
            raise each
        else:
            results.append(each)
    if errors:
        raise VolumesError(errors)
    return results


def _remove_empty(volumes: Path) -> None:
    """Remove the plugins' directories, the one around them and the pod's, as far as they are empty."""
    try:
        plugins = [volumes / name for name in os.listdir(volumes)]
    except FileNotFoundError:
        return
    for path in (*plugins, volumes, volumes.parent):
        try:
            os.rmdir(path)
        except OSError:  # others of the pod's files are there: theirs to remove
            return
