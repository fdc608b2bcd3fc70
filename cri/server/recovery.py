"""The start of crid after whatever ended it: kill -9, an upgrade, a reboot.

    records say      and found is                          then
    READY            its shim                              adopt it; exits of the meantime are told
    READY            no shim, same boot                    end what it left, NOTREADY, containers EXITED 255
    READY            another boot id                       the same, and its addresses are released
    NOTREADY         entries in the ledger                 the stop was interrupted: end it again
    nothing          entries in the ledger                 half-made: take it back

One sandbox that cannot be recovered is logged and left as it is; it never keeps the others from coming back.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Iterable

from cri.server.daemon import Daemon
from cri.server.pods import Container, Sandbox
from cri.server.sandbox_end import end_sandbox, remove_directory
from cri.server.stop_pod_sandbox import stop
from runtime.client import ContainerError, NotFound, Pod, ShimLost
from runtime.linux.files import boot_id

log = logging.getLogger("crid")

CONCURRENT = 16
#: Ledger kinds that crid itself writes for a sandbox; the others belong to images and cni.
_OWN_KINDS = ("dir", "mount", "netns", "cgroup")


async def recover(daemon: Daemon) -> None:
    """Bring state and kernel together again. Raises nothing for a single sandbox's sake."""
    started = time.perf_counter()
    for line in daemon.store.load():
        log.error("left alone: %s", line)
    daemon.ledger.strike_outlived()
    await daemon.images.recover()
    await _each(_recover_sandbox(daemon, sandbox) for sandbox in daemon.store.sandboxes)
    known = {sandbox.id for sandbox in daemon.store.sandboxes}
    holders = {entry.holder for kind in _OWN_KINDS for entry in daemon.ledger.entries(kind)} - known - {""}
    await _each(_take_back(daemon, holder) for holder in sorted(holders))
    await _release_orphaned_snapshots(daemon)
    await _collect_network(daemon)
    log.info(
        "recovered %d sandboxes and %d containers in %.0f ms",
        len(daemon.store.sandboxes),
        len(daemon.store.containers),
        (time.perf_counter() - started) * 1000,
    )


async def _each(jobs: Iterable[Awaitable[None]]) -> None:
    slots = asyncio.Semaphore(CONCURRENT)

    async def run(job: Awaitable[None]) -> None:
        async with slots:
            await job

    await asyncio.gather(*(run(job) for job in jobs))


async def _recover_sandbox(daemon: Daemon, sandbox: Sandbox) -> None:
    try:
        if sandbox.boot != boot_id():
            await _lost(daemon, sandbox, "the machine was restarted")
            # It was below /run; until the sandbox is removed, its entry in the ledger holds those of its containers.
            daemon.sandbox_directory(sandbox.id).mkdir(mode=0o700, parents=True, exist_ok=True)
        elif sandbox.ready:
            await _adopt(daemon, sandbox)
        elif daemon.ledger.entries(holder=sandbox.id):
            await _stop_again(daemon, sandbox)
    except Exception:
        log.exception("sandbox %s of pod %s could not be recovered; stopping it tries again", sandbox.id, sandbox.name)


async def _adopt(daemon: Daemon, sandbox: Sandbox) -> None:
    try:
        pod = sandbox.pod = await daemon.runtime.adopt(sandbox.id)
        for container in list(sandbox.containers.values()):
            if not container.finished_at:
                await _catch_up(daemon, container, pod)
    except ShimLost as error:
        await _lost(daemon, sandbox, str(error))


async def _catch_up(daemon: Daemon, container: Container, pod: Pod) -> None:
    """What the records do not know yet: a start that was not written down, an end that nobody told."""
    try:
        status = await pod.container_status(container.id)
    except NotFound:
        daemon.exits.finish_lost(container, "its shim does not know it")
        return
    if not container.started_at and status.get("started_at"):
        container.started_at = int(status["started_at"])
        daemon.store.save_state(container)
    daemon.exits.started(container)


async def _stop_again(daemon: Daemon, sandbox: Sandbox) -> None:
    """A stop was interrupted; with the shim still there, the containers' true exit codes are told."""
    with contextlib.suppress(ShimLost):
        sandbox.pod = await daemon.runtime.adopt(sandbox.id)
    await stop(daemon, sandbox)


async def _lost(daemon: Daemon, sandbox: Sandbox, why: str) -> None:
    log.warning("sandbox %s of pod %s is not ready any more: %s", sandbox.id[:13], sandbox.name, why)
    sandbox.pod = None
    was_ready = sandbox.ready
    try:
        await end_sandbox(daemon, sandbox)
    finally:
        daemon.exits.sandbox_lost(sandbox, why)
    if was_ready:
        sandbox.ended = True


async def _take_back(daemon: Daemon, holder: str) -> None:
    """A sandbox that was being made, or removed, when crid ended: it has no record."""
    try:
        await daemon.runtime.destroy_lost(holder)
        await remove_directory(daemon, holder)
        entries = daemon.ledger.entries(holder=holder)
        daemon.ledger.strike(*(entry for entry in entries if entry.kind in _OWN_KINDS))
        log.info("took back the half-made sandbox %s", holder[:13])
    except (ContainerError, OSError):
        log.exception("the half-made sandbox %s could not be taken back; the next start tries again", holder)


async def _release_orphaned_snapshots(daemon: Daemon) -> None:
    """Snapshots of containers that were being made or removed."""
    used = {key for container in daemon.store.containers for key in container.snapshots}
    for key in sorted(daemon.images.snapshots().keys() - used):
        try:
            await daemon.images.release(key)
        except Exception:
            log.exception("snapshot %s could not be released; the next start tries again", key)


async def _collect_network(daemon: Daemon) -> None:
    """Whatever network state belongs to no pod that lives is undone; CNI GC included."""
    live = [sandbox.id for sandbox in daemon.store.sandboxes if sandbox.ready]
    try:
        for line in await daemon.cni.recover(live):
            log.error("left of a former pod's network: %s; the next start tries again", line)
    except Exception:
        log.exception("the network could not be cleaned of former pods; the next start tries again")
