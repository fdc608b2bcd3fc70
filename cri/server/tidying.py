"""What a former run of crid has left, undone beside the calls of clients: after the states are true, and not before
anybody may ask for them.

    half-made sandboxes      they have entries in the ledger and no record
    half-started containers  nobody was told that they run, so they are CREATED and can be started
    snapshots                of containers that were being made or removed
    the network              of pods that do not live, and then CNI GC
    pods that have ended     their shim is lost, the machine was restarted, or a stop was interrupted
    checkpoints              that were being made or restored: some of it is in clients' directories

Who makes a new pod waits for all but the last two (Daemon.tidied): its cgroup, host ports and addresses may be among
them. A pod's end is a StopPodSandbox as any other, which a plugin that hangs delays for its own pod only.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Iterable

from cri.server.calls.stop_pod_sandbox import stop
from cri.server.checkpoint import workplace
from cri.server.daemon import Daemon, pod_of
from cri.server.exits import KERNEL_KINDS
from cri.server.pods import Container, Sandbox
from cri.server.sandbox_end import remove_directory

log = logging.getLogger("crid")

CONCURRENT = 16
#: Ledger kinds that crid itself writes for a sandbox; the others belong to images and cni.
_OWN_KINDS = ("dir", *KERNEL_KINDS)


async def tidy(daemon: Daemon) -> None:
    """Raises nothing: what cannot be undone now keeps its entry in the ledger, and is logged."""
    started = time.perf_counter()
    try:
        await each(_take_back(daemon, holder) for holder in _half_made(daemon))
        await take_back_starts(daemon)
        await _release_orphaned_snapshots(daemon)
        await _collect_network(daemon)
    finally:
        daemon.tidied.set()
        await take_back_starts(daemon)  # a shim that answered late may have been adopted since
    await each(_end(daemon, sandbox) for sandbox in daemon.store.sandboxes if not sandbox.ready)
    await each(workplace.remove_leftover(daemon, entry) for entry in daemon.leftovers)
    log.info("what was left is undone, in %.0f ms", (time.perf_counter() - started) * 1000)


async def each(jobs: Iterable[Awaitable[None]]) -> None:
    """All jobs, a bounded number at a time."""
    slots = asyncio.Semaphore(CONCURRENT)

    async def run(job: Awaitable[None]) -> None:
        async with slots:
            await job

    await asyncio.gather(*(run(job) for job in jobs))


def _half_made(daemon: Daemon) -> list[str]:
    known = {sandbox.id for sandbox in daemon.store.sandboxes} | daemon.store.unread
    holders = {entry.holder for kind in _OWN_KINDS for entry in daemon.ledger.entries(kind)}
    return sorted(holder for holder in holders - known - {""} if not holder.startswith(workplace.HOLDER))


async def _take_back(daemon: Daemon, holder: str) -> None:
    """A sandbox that was being made, or removed, when crid ended."""
    try:
        await daemon.runtime.destroy_lost(holder)
        await remove_directory(daemon, holder)
        entries = daemon.ledger.entries(holder=holder)
        daemon.ledger.strike(*(entry for entry in entries if entry.kind in _OWN_KINDS))
        log.info("took back the half-made sandbox %s", holder[:13])
    except Exception:
        log.exception("the half-made sandbox %s could not be taken back; the next start tries again", holder)


async def take_back_starts(daemon: Daemon) -> None:
    """Of containers in sandboxes that have been adopted by now."""
    containers, daemon.half_started = daemon.half_started, []
    await each(_take_back_start(daemon, container) for container in containers)


async def _take_back_start(daemon: Daemon, container: Container) -> None:
    try:
        await pod_of(container.sandbox).remove_container(container.id)
        daemon.ledger.strike(("cgroup", container.cgroup))
    except Exception:
        log.exception("the start of container %s (%s) could not be taken back", container.id, container.name)
    finally:
        container.lock.release()


async def _release_orphaned_snapshots(daemon: Daemon) -> None:
    holders = daemon.images.containers.holders()
    for key in daemon.orphans:
        if not daemon.store.unread.isdisjoint((holders.get(key), key.partition("-")[0])):
            continue  # a container's layer has its id, an image volume begins with it
        try:
            await daemon.images.containers.release(key)
        except Exception:
            log.exception("snapshot %s could not be released; the next start tries again", key)


async def _collect_network(daemon: Daemon) -> None:
    """Whatever network state belongs to no pod that lives is undone; CNI GC included."""
    live = [*(sandbox.id for sandbox in daemon.store.sandboxes if sandbox.ready), *daemon.store.unread]
    try:
        for line in await daemon.cni.recover(live):
            log.error("left of a former pod's network: %s; the next start tries again", line)
    except Exception:
        log.exception("the network could not be cleaned of former pods; the next start tries again")


async def _end(daemon: Daemon, sandbox: Sandbox) -> None:
    async with sandbox.lock:
        if sandbox.ended or daemon.store.sandboxes.find(sandbox.id) is not sandbox:
            return  # a client's StopPodSandbox or RemovePodSandbox came first
        try:
            await stop(daemon, sandbox)
        except Exception:
            log.exception("sandbox %s of pod %s could not be ended; stopping it tries again", sandbox.id, sandbox.name)
