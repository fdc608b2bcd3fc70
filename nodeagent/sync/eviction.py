"""Pods that take more of the node's disk than they may are evicted: ended at once, and Failed.

Nothing holds a directory to a size while it is written (an emptyDir in memory is a file system of its own, whose size
is the limit), so usage is looked at now and then, as in the kubelet. The kubelet spares static pods; here every pod is
one, so none is spared. An eviction stands in a file of the pod's: it holds over restarts, until the manifest changes or
goes.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable

from cri.client import CriError
from nodeagent.sync.disk_usage import DiskUsage
from nodeagent.sync.worker import PodWorker

log = logging.getLogger(__name__)

#: Seconds between two looks; more where they take long.
EVERY = 5.0
#: A look that took a second is followed by this many without one.
SHARE = 20


class Evictions:
    """`workers` gives those of all pods."""

    def __init__(self, workers: Callable[[], Iterable[PodWorker]], usage: DiskUsage) -> None:
        self._workers = workers
        self._usage = usage
        self._given_up: set[str] = set()

    async def run(self) -> None:
        """Until cancelled."""
        pause = EVERY
        while True:
            await asyncio.sleep(pause)
            started = time.monotonic()
            for worker in list(self._workers()):
                await self._look_at(worker)
            pause = max(EVERY, (time.monotonic() - started) * SHARE)

    async def _look_at(self, worker: PodWorker) -> None:
        pod = worker.alive
        if pod is None or pod.uid in self._given_up:
            return
        try:
            if excess := await self._usage.excess(pod):
                await worker.evict(pod, excess)
        except TimeoutError as error:
            # Its thread hangs still: no second one.
            self._given_up.add(pod.uid)
            log.warning("pod %s: its usage of the disk is not looked at any more: %s", worker.key, error)
        except (CriError, OSError) as error:
            log.warning("pod %s: its usage of the disk cannot be told: %s", worker.key, error)
