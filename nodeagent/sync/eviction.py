"""Pods that take more of the node's disk than they may are evicted: ended at once, and Failed.

Nothing holds a directory to a size while it is written (an emptyDir in memory is a file system of its own, whose size
is the limit), so usage is looked at now and then, as in the kubelet. The kubelet spares static pods; here every pod is
one, so none is spared. An eviction stands in a file of the pod's: it holds over restarts, until the manifest changes or
goes.

Pods decide how long a look takes, by the number of their files. So a slow one goes on by itself, in a thread, while the
others are looked at, and counts when it ends; a pod rests after it in proportion, so that none keeps the disk busy.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from cri.client import CriError
from nodeagent.pods.pod import Pod
from nodeagent.sync.disk_usage import DiskUsage
from nodeagent.sync.worker import PodWorker

log = logging.getLogger(__name__)

#: Seconds between two looks; more where they take long.
EVERY = 5.0
#: A look that took a second is followed by this many without one.
SHARE = 20
#: Seconds that one pod's look keeps the others waiting.
PATIENCE = 2.0


class _Look:
    """One measurement of one pod, which may take longer than others can wait."""

    def __init__(self, pod: Pod, work: Coroutine[Any, Any, str]) -> None:
        self.pod = pod
        self.task = asyncio.create_task(work, name=f"disk usage of {pod.key}")
        self.began = time.monotonic()


class Evictions:
    """`workers` gives those of all pods."""

    def __init__(self, workers: Callable[[], Iterable[PodWorker]], usage: DiskUsage) -> None:
        self._workers = workers
        self._usage = usage
        self._looks: dict[str, _Look] = {}
        self._resting: dict[str, float] = {}

    async def run(self) -> None:
        """Until cancelled."""
        pause = EVERY
        try:
            while True:
                await asyncio.sleep(pause)
                started = time.monotonic()
                for worker in list(self._workers()):
                    await self._look_at(worker)
                self._forget_all_but({worker.alive.uid for worker in self._workers() if worker.alive})
                pause = max(EVERY, (time.monotonic() - started) * SHARE)
        finally:
            self._forget_all_but(set())

    async def _look_at(self, worker: PodWorker) -> None:
        pod = worker.alive
        if pod is None or self._resting.get(pod.uid, 0.0) > time.monotonic():
            return
        look = self._looks.get(pod.uid)
        if look is None:
            look = self._looks[pod.uid] = _Look(pod, self._usage.excess(pod))
            await asyncio.wait({look.task}, timeout=PATIENCE)
            if not look.task.done():
                log.warning("pod %s: to measure its usage of the disk takes more than %g s", worker.key, PATIENCE)
        if look.task.done():
            del self._looks[pod.uid]
            self._resting[pod.uid] = time.monotonic() + (time.monotonic() - look.began) * SHARE
            await self._judge(worker, look)

    async def _judge(self, worker: PodWorker, look: _Look) -> None:
        try:
            excess = look.task.result()
            if excess and worker.alive is look.pod:
                await worker.evict(look.pod, excess)
        except (CriError, OSError) as error:
            log.warning("pod %s: its usage of the disk cannot be told: %s", worker.key, error)

    def _forget_all_but(self, alive: set[str]) -> None:
        for uid in self._looks.keys() - alive:
            self._looks.pop(uid).task.cancel()
        self._resting = {uid: until for uid, until in self._resting.items() if uid in alive}
