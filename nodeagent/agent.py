"""The agent: manifests and runtime events in, one worker for each pod, a status API, log rotation.

    manifest directory --> what is wanted --+
                                            +--> PodWorker for each namespace/name --> CRI
    GetContainerEvents, lists --> wake -----+

It starts nothing but tasks and keeps no state of pods: kill it at any time, start it again, and it finds by its labels
what it has made. Pods whose manifest went meanwhile are ended, volumes and files that no pod needs are undone.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable
from typing import Any

from cri.client import CriClient
from nodeagent.api.server import StatusApi
from nodeagent.config import Config
from nodeagent.logs.rotation import LogRotation
from nodeagent.manifests.catalogue import Catalogue, FileProblem, Wanted
from nodeagent.manifests.directory import ManifestDirectory
from nodeagent.manifests.lastgood import LastGood
from nodeagent.node import Node
from nodeagent.plugins import PluginWatcher
from nodeagent.pods.pod import Key
from nodeagent.sync.disk_usage import DiskUsage
from nodeagent.sync.eviction import Evictions
from nodeagent.sync.journal import Journal
from nodeagent.sync.observed import observe_all
from nodeagent.sync.pod_files import PodFiles
from nodeagent.sync.pulls import ImageService
from nodeagent.sync.runtime_events import RuntimeEvents
from nodeagent.sync.teardown import Teardown
from nodeagent.sync.tools import Tools
from nodeagent.sync.worker import PodWorker
from nodeagent.volumes.claims import ClaimBook, ClaimIndex
from nodeagent.volumes.manager import VolumeManager
from runtime.linux.ledger import Ledger
from runtime.linux.records import Records

log = logging.getLogger(__name__)

#: Of the agent's entries in the ledger.
OWNER = "nodeagent"
#: Seconds after which a worker that failed by a fault of ours looks at its pod again.
REVIVAL = 10.0


class Agent:
    """To be made and run within one event loop."""

    def __init__(self, config: Config, node: Node, cri: CriClient) -> None:
        self._config = config
        self._records = Records(config.database)
        self._ledger = Ledger(config.database, OWNER)
        self.journal = Journal()
        self._wanted: Wanted | None = None
        self._read = asyncio.Event()
        self._claims = ClaimIndex()
        self._book = ClaimBook(self._records)
        self._said: set[FileProblem] = set()
        self._workers: dict[Key, PodWorker] = {}
        self._tasks: dict[Key, asyncio.Task[None]] = {}
        files = PodFiles(node, self._ledger)
        volumes = VolumeManager(config.kubelet_root, self._ledger)
        teardown = Teardown(volumes, files, self.journal)
        self._tools = Tools(cri, node, self.journal, ImageService(cri), volumes, self._claims_now, files, teardown)
        self._events = RuntimeEvents(cri, node, self._look_at, self._list_all)
        self._reconciled = False

    async def run(self, ready: Callable[[], object] = lambda: None) -> None:
        """Until cancelled; `ready` is called once its status can be asked for.

        Raises OSError when the agent cannot have its socket or directories.
        """
        config, tools = self._config, self._tools
        catalogue = Catalogue(tools.node.name, str(config.manifests))
        manifests = ManifestDirectory(config.manifests, catalogue, LastGood(self._records), self._want)
        rotation = LogRotation(tools.cri, tools.node.name, config.log_size, config.log_files)
        evictions = Evictions(self._workers.values, DiskUsage(tools.cri, tools.node, tools.volumes.layout))
        plugins = PluginWatcher(tools.volumes.layout.registry, {"CSIPlugin": _Registrations(self)})
        api = StatusApi(self, config.socket)
        async with contextlib.AsyncExitStack() as stack:
            stack.callback(self._ledger.close)
            stack.callback(self._records.close)
            stack.push_async_callback(tools.volumes.close)
            stack.push_async_callback(tools.teardown.close)
            stack.push_async_callback(self._stop_workers)
            await api.start()
            stack.push_async_callback(api.close)
            await plugins.start()
            stack.push_async_callback(plugins.close)
            ready()
            async with asyncio.TaskGroup() as group:
                group.create_task(manifests.run(), name="manifests")
                group.create_task(self._follow_runtime(), name="runtime events")
                group.create_task(rotation.run(), name="log rotation")
                group.create_task(evictions.run(), name="evictions")

    async def _follow_runtime(self) -> None:
        """Once the manifests are read: until then nobody can say which pods are orphans."""
        await self._read.wait()
        await self._events.run()

    def documents(self) -> Iterable[dict[str, Any]]:
        return [worker.document for worker in self._workers.values()]

    def problems(self) -> Iterable[FileProblem]:
        own = self._wanted.problems if self._wanted else []
        return [*own, *(FileProblem(label, reason) for label, reason in self._claims.problems.items())]

    def health(self) -> dict[str, Any]:
        return {
            "healthy": self._events.connected and self._wanted is not None,
            "node": self._tools.node.name,
            "runtime": {
                "socket": self._config.cri,
                "connected": self._events.connected,
                "problem": self._events.problem,
            },
            "manifests": str(self._config.manifests),
            "kubeletRoot": str(self._config.kubelet_root),
            "drivers": self._tools.volumes.drivers.names(),
            "pods": len(self._workers),
            "pendingTeardowns": sorted(self._tools.teardown.pending | self._tools.volumes.pending),
        }

    def retry_all(self) -> None:
        """Whatever kept pods from starting may be over."""
        for worker in self._workers.values():
            worker.retry_now()

    def _want(self, wanted: Wanted) -> None:
        """The manifests say something new."""
        self._wanted = wanted
        self._claims = self._book.index(wanted.storage)
        for problem in set(wanted.problems) - self._said:
            log.log(logging.ERROR if problem.fatal else logging.WARNING, "manifest %s", problem)
        self._said = set(wanted.problems)
        for key in wanted.pods.keys() | self._workers.keys():
            self._worker(key).want(wanted.pods.get(key))
        self.retry_all()
        if not self._read.is_set():
            self._read.set()
            log.info("manifests: %d pods wanted by %s", len(wanted.pods), self._config.manifests)

    def _claims_now(self) -> ClaimIndex:
        """For a pod that mounts its volumes; what could not be written before is tried again."""
        if self._claims.withheld and self._wanted is not None:
            self._claims = self._book.index(self._wanted.storage)
        return self._claims

    def _look_at(self, key: Key) -> None:
        """Something happened to a pod of ours; it may be one that no manifest wants."""
        self._worker(key).wake()

    async def _list_all(self) -> None:
        """Anything may have happened. Raises CriError."""
        sandboxes = await observe_all(self._tools.cri, self._tools.node)
        assert self._wanted is not None
        for key in {sandbox.key for sandbox in sandboxes} | self._workers.keys():
            self._worker(key).wake()
        if not self._reconciled:
            self._reconciled = True
            known = {sandbox.uid for sandbox in sandboxes} | {pod.uid for pod in self._wanted.pods.values()}
            self._undo_all_but(known)

    def _undo_all_but(self, known: set[str]) -> None:
        for uid in self._tools.files.uids() - known:
            self._tools.teardown.begin(Key("", uid), uid)
        self._tasks[Key("", "")] = asyncio.create_task(self._reconcile(known), name="reconcile volumes")

    async def _reconcile(self, known: set[str]) -> None:
        done = await self._tools.volumes.reconcile(known)
        for volume in done.undone:
            log.info("volumes: undone after the restart: %s", volume)
        for volume, why in done.left.items():
            log.warning("volumes: %s is left: %s", volume, why)

    def _worker(self, key: Key) -> PodWorker:
        worker = self._workers.get(key)
        if worker is None:
            worker = self._workers[key] = PodWorker(key, self._tools)
            self._tasks[key] = asyncio.create_task(self._keep_going(key, worker), name=f"pod {key}")
        return worker

    async def _keep_going(self, key: Key, worker: PodWorker) -> None:
        """A fault of ours in one pod's worker is told and does not reach the other pods."""
        while True:
            try:
                await worker.run()
                break
            except Exception:
                log.exception("pod %s: the worker failed; it goes on in %g s", key, REVIVAL)
                await asyncio.sleep(REVIVAL)
        del self._workers[key], self._tasks[key]

    async def _stop_workers(self) -> None:
        """Pods go on; what their workers were doing at this moment is found again by the next agent."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


class _Registrations:
    """CSI drivers that register: pods that waited for one try again."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._drivers = agent._tools.volumes.drivers

    async def register(self, plugin: Any, socket: Any) -> None:
        await self._drivers.register(plugin, socket)
        self._agent.retry_all()

    async def deregister(self, plugin: Any, socket: Any) -> None:
        await self._drivers.deregister(plugin, socket)
