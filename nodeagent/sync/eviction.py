"""Pods that take more of the node's disk than the sizeLimit of an emptyDir allows are evicted: ended, and Failed.

Nothing holds a directory to a size while it is written (one in memory is a file system of its own, whose size is the
limit), so the volumes are measured now and then, as in the kubelet (pkg/kubelet/eviction). The kubelet spares static
pods; here every pod is one, so none is spared. An eviction stands in a file of the pod's: it holds over restarts,
until the manifest changes or goes.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from nodeagent.pods.pod import Pod
from nodeagent.sync.worker import PodWorker
from nodeagent.volumes import empty_dir
from nodeagent.volumes.deadline import within
from nodeagent.volumes.layout import EMPTY_DIR, Layout
from runtime.linux.treesize import measure

log = logging.getLogger(__name__)

EVERY = 5.0
"""Seconds between two looks; more where they take long."""
SHARE = 20
"""A look that took a second is followed by this many without one."""
PATIENCE = 120.0
"""Seconds for one volume: a file system that hangs holds up nobody else's for longer."""


class Evictions:
    """`workers` gives those of all pods."""

    def __init__(self, workers: Callable[[], Iterable[PodWorker]], layout: Layout) -> None:
        self._workers = workers
        self._layout = layout

    async def run(self) -> None:
        """Until cancelled."""
        pause = EVERY
        while True:
            await asyncio.sleep(pause)
            started = time.monotonic()
            for worker in list(self._workers()):
                try:
                    await self._look_at(worker)
                except OSError as error:  # TimeoutError among them
                    log.warning("pod %s: its volumes cannot be measured: %s", worker.key, error)
            pause = max(EVERY, (time.monotonic() - started) * SHARE)

    async def _look_at(self, worker: PodWorker) -> None:
        pod = worker.alive
        if pod is None:
            return
        for name, limit in empty_dir.limits(pod.document).items():
            if await within(PATIENCE, _exceeds, self._layout.volume(pod.uid, EMPTY_DIR, name), limit):
                await worker.evict(pod, f'Usage of EmptyDir volume "{name}" exceeds the limit "{_asked(pod, name)}".')
                return


def _exceeds(path: Path, limit: int) -> bool:
    try:
        return measure(path, enough=limit)[0] > limit
    except FileNotFoundError:  # not mounted yet, or not any more
        return False


def _asked(pod: Pod, name: str) -> str:
    """The limit as the manifest has it."""
    volume = next(each for each in pod.spec["volumes"] if each["name"] == name)
    return str(volume["emptyDir"]["sizeLimit"])
