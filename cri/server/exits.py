"""What becomes known about containers without anybody asking: their exits, and shims that are gone."""

from __future__ import annotations

import asyncio
import logging
import time

from cri.proto import api_pb2 as api
from cri.server.events import Events
from cri.server.nri.nri import Nri
from cri.server.pods import Container, Sandbox
from cri.server.store import Store
from runtime.client import Event, Exited, Runtime, ShimLostEvent
from runtime.linux.ledger import Ledger

log = logging.getLogger("crid")

#: Ledger kinds of what a sandbox has in the kernel.
KERNEL_KINDS = ("mount", "netns", "cgroup")
#: Exit code of a container whose real one nobody can know any more; the peers report the same.
LOST_EXIT_CODE = 255


class Exits:
    """Turns the runtime's events into state, records and events of the interface."""

    def __init__(self, store: Store, events: Events, ledger: Ledger) -> None:
        self._store = store
        self._ledger = ledger
        self._events = events
        self._runtime: Runtime | None = None
        self._nri: Nri | None = None
        self._early: dict[str, Exited] = {}
        self._cleaning: set[asyncio.Task[None]] = set()

    def watch(self, runtime: Runtime) -> None:
        """The runtime to clean up with when a shim is lost; made after this object, which it reports to."""
        self._runtime = runtime

    def tell(self, nri: Nri) -> None:
        """Whose plugins want to know of every end."""
        self._nri = nri

    def on_event(self, event: Event) -> None:
        """The runtime's callback, in the event loop."""
        if isinstance(event, ShimLostEvent):
            task = asyncio.ensure_future(self._shim_lost(event.sandbox_id))
            self._cleaning.add(task)
            task.add_done_callback(self._cleaning.discard)
        else:
            self.happened(event)

    def happened(self, event: Exited) -> None:
        """A container's process has ended. Told twice (event and file), the first one counts."""
        container = self._store.containers.find(event.container_id)
        if container is None or container.finished_at:
            return
        if not container.started_at and event.started_at:
            container.started_at = event.started_at
        if not container.started_at:
            self._early[event.container_id] = event  # StartContainer has yet to hear that it started
            return
        reason = "OOMKilled" if event.oom_killed else "Completed" if event.exit_code == 0 else "Error"
        self.finish(container, event.exit_code, event.finished_at, reason)

    def forget_try(self, container: Container) -> None:
        """What was told of a start that came to nothing is no exit of the next one."""
        self._early.pop(container.id, None)

    def started(self, container: Container) -> None:
        """StartContainer is through: an exit that overtook it can be told now."""
        if early := self._early.pop(container.id, None):
            self.happened(early)

    def finish(self, container: Container, exit_code: int, finished_at: int, reason: str, message: str = "") -> None:
        """Write down the end of a container and tell everybody who waits for it."""
        container.exit_code, container.finished_at = exit_code, finished_at
        container.reason, container.message = reason, message
        self._early.pop(container.id, None)
        self._store.save_end(container)
        if container.sandbox.pod is not None:  # else it goes, and is struck out, with the rest of its sandbox
            self._ledger.strike(("cgroup", container.cgroup))  # the shim removes it before it tells of the exit
        if container.kill_timer is not None:
            container.kill_timer.cancel()
            container.kill_timer = None
        container.exited.set()
        log.info("container %s (%s) exited: code %d, %s", container.id[:13], container.name, exit_code, reason)
        self._events.publish(api.CONTAINER_STOPPED_EVENT, container.id, container.sandbox)
        if self._nri is not None:
            self._nri.exited(container)

    def finish_lost(self, container: Container, why: str) -> None:
        """The end of a container that nobody saw end."""
        if container.running:
            self.finish(container, LOST_EXIT_CODE, time.time_ns(), "Unknown", why)

    async def _shim_lost(self, sandbox_id: str) -> None:
        """One pod's shim is gone: end what is left of that pod, which is NOTREADY from now on."""
        sandbox = self._store.sandboxes.find(sandbox_id)
        if sandbox is None or sandbox.pod is None or self._runtime is None:
            return
        log.error("the shim of sandbox %s (pod %s) is gone; its containers are ended", sandbox_id[:13], sandbox.name)
        sandbox.pod = None
        try:
            for event in await self._runtime.destroy_lost(sandbox_id):
                self.happened(event)
            strike_kernel_state(self._ledger, sandbox_id)
        except Exception:  # whatever failed, the pod is NOTREADY, and everybody who waits for its containers is told
            log.exception("sandbox %s: not all that its shim left could be undone; stopping it tries again", sandbox_id)
        self.sandbox_lost(sandbox, "the pod's shim was lost")

    def sandbox_lost(self, sandbox: Sandbox, why: str) -> None:
        """The pod is NOTREADY without having been asked; its network is released by StopPodSandbox, which follows."""
        for container in list(sandbox.containers.values()):
            self.finish_lost(container, why)
        if sandbox.ready:
            sandbox.stopped_at = time.time_ns()
            self._store.save_end(sandbox)
            self._events.publish(api.CONTAINER_STOPPED_EVENT, sandbox.id, sandbox)


def strike_kernel_state(ledger: Ledger, holder: str) -> None:
    """After a sandbox's shim, or destroy_lost(), has undone what it had in the kernel."""
    ledger.strike(*(entry for entry in ledger.entries(holder=holder) if entry.kind in KERNEL_KINDS))
