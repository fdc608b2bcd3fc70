"""What could not be undone at once: pods' volumes and staged volumes left by a crash, or by a driver that is away.

They are tried again soon after a driver has registered, else more and more seldom, until nothing is left. The ledger
holds them meanwhile, so the next start of the agent finds them too.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from nodeagent.volumes.csi_volume import DRIVER_FAILURES, CsiVolumes
from nodeagent.volumes.deadline import LOCAL, within
from nodeagent.volumes.errors import VolumesError
from nodeagent.volumes.layout import Layout
from runtime.linux.ledger import Effect

log = logging.getLogger(__name__)

#: Seconds between attempts; doubled up to the last one.
FIRST_PAUSE, LAST_PAUSE = 5.0, 300.0


@dataclass(slots=True)
class Reconciled:
    """What was undone; what is still to be undone, and why; volume directories that this agent has not made."""

    undone: list[str] = field(default_factory=list)
    left: dict[str, str] = field(default_factory=dict)
    strangers: list[Path] = field(default_factory=list)


class Leftovers:
    """`pods` are the uids still to be unmounted, by `unmount`, which raises VolumesError."""

    def __init__(self, layout: Layout, csi: CsiVolumes, unmount: Callable[[str], Awaitable[None]]) -> None:
        self.pods: set[str] = set()
        self._layout = layout
        self._csi = csi
        self._unmount = unmount
        self._said: dict[str, str] = {}
        self._wake = asyncio.Event()
        self._retrying: asyncio.Task[None] | None = None

    def add(self, uid: str, error: VolumesError) -> None:
        """A pod that could not be unmounted."""
        self.pods.add(uid)
        self._left(f"pod {uid}", error)

    def discard(self, uid: str) -> None:
        self.pods.discard(uid)
        self._said.pop(f"pod {uid}", None)

    def try_soon(self, driver: str) -> None:
        """`driver` has registered: what waited for it can go on."""
        self._wake.set()

    async def close(self) -> None:
        if self._retrying is not None:
            self._retrying.cancel()
            await asyncio.wait({self._retrying})

    async def reconcile(self, unknown: set[str], ours: set[str]) -> Reconciled:
        """Unmount the unknown pods, then unstage what no pod uses; directories of pods not in `ours` are strangers'."""
        self.pods |= unknown
        result = Reconciled()
        await self._undo_all(result)
        result.strangers = await within(LOCAL, _strangers, self._layout.pods, ours)
        for path in result.strangers:
            log.warning("volumes: %s is of no pod of this agent and stays; remove it if nobody else uses it", path)
        return result

    async def _undo_all(self, result: Reconciled) -> None:
        await asyncio.gather(*(self._try(f"pod {uid}", functools.partial(self._pod, uid), result) for uid in self.pods))
        await asyncio.gather(
            *(
                self._try(_named(entry), functools.partial(self._csi.unstage_unused, entry), result)
                for entry in self._unused()
            )
        )

    async def _pod(self, uid: str) -> None:
        await self._unmount(uid)
        self.pods.discard(uid)

    def _unused(self) -> Iterable[Effect]:
        staged, used = self._csi.staged()
        return [entry for entry in staged if entry.key not in used]

    async def _try(self, label: str, work: Callable[[], Awaitable[None]], result: Reconciled) -> None:
        try:
            await work()
        except (VolumesError, *DRIVER_FAILURES) as error:
            result.left[label] = str(error)
            self._left(label, error)
        else:
            result.undone.append(label)
            self._said.pop(label, None)

    def _left(self, label: str, error: Exception) -> None:
        if self._said.get(label) != str(error):
            log.warning("volumes: %s is still to be undone, which is tried again: %s", label, error)
        self._said[label] = str(error)
        if self._retrying is None or self._retrying.done():
            self._wake.clear()
            self._retrying = asyncio.create_task(self._retry(), name="volumes left over")

    async def _retry(self) -> None:
        pause = FIRST_PAUSE
        result = Reconciled(left={"": ""})
        while result.left or self.pods:
            try:
                async with asyncio.timeout(pause):
                    await self._wake.wait()
                pause = FIRST_PAUSE
            except TimeoutError:
                pause = min(pause * 2, LAST_PAUSE)
            # Before the work and not after it: a driver may register while another one keeps that waiting.
            self._wake.clear()
            result = Reconciled()
            await self._undo_all(result)
            for label in result.undone:
                log.info("volumes: %s is undone at last", label)


def _named(staged: Effect) -> str:
    return f"staged volume {staged.detail['handle']} of {staged.detail['driver']}"


def _strangers(pods: Path, ours: set[str]) -> list[Path]:
    """Directories of volumes below `pods` that belong to none of our pods."""
    return sorted(path for path in pods.glob("*/volumes/*/*") if path.parts[-4] not in ours)
