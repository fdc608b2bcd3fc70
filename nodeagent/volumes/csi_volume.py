"""CSI volumes of pods: staged once on the node, published to each pod, and both undone, whatever dies in between.

    ledger entry -> NodeStageVolume -> NodePublishVolume -> "published" in the entry
    NodeUnpublishVolume -> directory removed -> entry struck -> last user? NodeUnstageVolume -> entry struck

An entry stands before the driver is called, so after kill -9 at any point it says what may have been done, and the
driver's calls may all be repeated. Nothing is ever deleted below a target path: only empty directories are removed.
"""

from __future__ import annotations

import asyncio
import weakref
from pathlib import Path

from csi.client import CsiError
from nodeagent.volumes import csi_request as requests
from nodeagent.volumes import target_path
from nodeagent.volumes.deadline import LOCAL, within
from nodeagent.volumes.drivers import DriverMissing, Drivers, Registered
from nodeagent.volumes.layout import CSI, Layout
from nodeagent.volumes.plan import CsiVolume
from runtime.linux.failpoints import failpoint
from runtime.linux.files import boot_id
from runtime.linux.ledger import Effect, Ledger
from runtime.linux.mounttable import is_mount_point

#: The driver did not say what became of the call: undoing it at once would only wait for it again.
SILENT = frozenset({"DEADLINE_EXCEEDED", "UNAVAILABLE", "CANCELLED"})

FAILPOINTS = (
    "agent.csi.recorded",
    "agent.csi.prepared",
    "agent.csi.staged",
    "agent.csi.published",
    "agent.csi.unpublished",
    "agent.csi.cleared",
    "agent.csi.struck",
    "agent.csi.unstaged",
)

#: What calling a driver, and clearing up after it, can end in.
DRIVER_FAILURES = (CsiError, DriverMissing, target_path.NotEmpty, OSError)


class InUse(Exception):
    """A volume for one pod at a time is another pod's."""


class CsiVolumes:
    """Every method raises CsiError, DriverMissing, OSError or TimeoutError; `uid` is a pod's."""

    def __init__(self, layout: Layout, ledger: Ledger, drivers: Drivers) -> None:
        self._layout = layout
        self._ledger = ledger
        self._drivers = drivers
        self._locks: weakref.WeakValueDictionary[tuple[str, str], asyncio.Lock] = weakref.WeakValueDictionary()

    def _lock(self, driver: str, handle: str) -> asyncio.Lock:
        """One operation at a time on a volume, whichever pods want it."""
        return self._locks.setdefault((driver, handle), asyncio.Lock())

    async def mount(self, volume: CsiVolume, uid: str) -> Path:
        """Where the volume shows; for one that shows there already its driver is not asked. Raises InUse besides."""
        target = self._layout.volume(uid, CSI, volume.name) / "mount"
        async with self._lock(volume.driver, volume.handle):
            before = self._published_before(volume, target)
            if before and await within(LOCAL, _shows, target):
                return target
            self._check_exclusive(volume, uid)
            registered = await self._drivers.get(volume.driver)
            staging = self._staging(volume, registered)
            published = _published(volume, uid, target, staging)
            self._record(published, staging)
            try:
                await self._publish(volume, registered, target, staging)
            except (CsiError, OSError) as error:
                if not before:  # else a container may be using it
                    await self._undo(published, error)
                raise
            self._ledger.record(Effect("volume", published.key, uid, {**published.detail, "published": True}))
        return target

    def _published_before(self, volume: CsiVolume, target: Path) -> bool:
        """Whether the driver has published it here since the node was booted."""
        done = {"driver": volume.driver, "handle": volume.handle, "published": True}.items()
        entries = [entry for entry in self._ledger.entries("volume") if entry.key == str(target)]
        return any(done <= entry.detail.items() and entry.boot_id == boot_id() for entry in entries)

    def _check_exclusive(self, volume: CsiVolume, uid: str) -> None:
        same = {"driver": volume.driver, "handle": volume.handle}.items()
        holders = {entry.holder for entry in self._ledger.entries("volume") if same <= entry.detail.items()}
        if volume.exclusive and (others := sorted(holders - {"", uid})):
            raise InUse(f"claim {volume.claim} is ReadWriteOncePod and in use by the pod with uid {others[0]}: end it")

    def _staging(self, volume: CsiVolume, registered: Registered) -> Path | None:
        if volume.inline or not registered.can("STAGE_UNSTAGE_VOLUME"):
            return None
        return self._layout.staging(volume.driver, volume.handle)

    def _record(self, published: Effect, staging: Path | None) -> None:
        around = Effect("dir", str(Path(published.key).parent), published.holder, published.detail)
        effects = [self._layout.effect(published.holder), around, published]
        if staging is not None:
            detail = {key: published.detail[key] for key in ("driver", "handle")} | {"staged": True}
            effects.append(Effect("volume", str(staging), "", detail))
        self._ledger.record(*effects)
        failpoint("agent.csi.recorded")

    async def _publish(self, volume: CsiVolume, registered: Registered, target: Path, staging: Path | None) -> None:
        asked = requests.asked(volume, registered)
        await within(LOCAL, target_path.prepare, target.parent, requests.vol_data(volume, registered))
        if staging is not None:
            about = {"driverName": volume.driver, "volumeHandle": volume.handle}
            await within(LOCAL, target_path.prepare, staging.parent, about, staging.name)
            failpoint("agent.csi.prepared")
            await registered.driver.stage(asked, staging)
            failpoint("agent.csi.staged")
        await registered.driver.publish(asked, target, staging_path=staging, read_only=volume.read_only)
        failpoint("agent.csi.published")
        await requests.give_group(volume, asked, target)

    async def _undo(self, published: Effect, error: CsiError | OSError) -> None:
        if isinstance(error, CsiError) and error.code in SILENT:
            error.add_note("what may have been done is undone when the driver answers again and the pod is gone")
            return
        try:
            await self._take_away(published)
        except DRIVER_FAILURES as second:
            error.add_note(f"and it could not be undone, which is tried again later: {second}")

    async def unmount(self, published: Effect) -> None:
        """Undo what a ledger entry of a pod stands for; the last pod's unstages the volume. Raises NotEmpty besides."""
        async with self._lock(published.detail["driver"], published.detail["handle"]):
            await self._take_away(published)

    async def _take_away(self, published: Effect) -> None:
        target, handle = Path(published.key), published.detail["handle"]
        registered = await self._drivers.get(published.detail["driver"])
        await registered.driver.unpublish(handle, target)
        failpoint("agent.csi.unpublished")
        await within(LOCAL, target_path.clear, target)
        failpoint("agent.csi.cleared")
        self._ledger.strike(published, ("dir", str(target.parent)))
        failpoint("agent.csi.struck")
        if staging := published.detail["staging"]:
            await self._unstage_unused(Path(staging), registered, handle)

    async def _unstage_unused(self, staging: Path, registered: Registered, handle: str) -> None:
        if str(staging) in self.staged()[1]:
            return
        await registered.driver.unstage(handle, staging)
        failpoint("agent.csi.unstaged")
        await within(LOCAL, target_path.clear, staging)
        self._ledger.strike(("volume", str(staging)))

    def staged(self) -> tuple[list[Effect], set[str]]:
        """The ledger's entries of staging paths, and which of those paths a pod's entry mentions."""
        entries = self._ledger.entries("volume")
        used = {entry.detail.get("staging", "") for entry in entries}
        return [entry for entry in entries if entry.detail.get("staged")], used

    async def unstage_unused(self, staged: Effect) -> None:
        """Unstage a volume that no pod's entry mentions (a crash came between the two); NotEmpty besides."""
        handle = staged.detail["handle"]
        async with self._lock(staged.detail["driver"], handle):
            registered = await self._drivers.get(staged.detail["driver"])
            await self._unstage_unused(Path(staged.key), registered, handle)


def _shows(target: Path) -> bool:
    try:
        return is_mount_point(target)
    except FileNotFoundError:
        return False


def _published(volume: CsiVolume, uid: str, target: Path, staging: Path | None) -> Effect:
    detail = {
        "volume": volume.name,
        "driver": volume.driver,
        "handle": volume.handle,
        "staging": str(staging or ""),
        "claim": volume.claim,
    }
    return Effect("volume", str(target), uid, detail)
