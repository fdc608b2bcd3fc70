"""The start of crid after whatever ended it: kill -9, an upgrade, a reboot.

    records say      and found is                          then
    READY            its shim                              adopt it; exits of the meantime are told
    READY            its shim, a start under way           adopt it; the container is CREATED, as its client was told
    READY            its shim, which hangs                 it is asked again, beside; until then as the records say
    READY            no shim, same boot                    NOTREADY; containers EXITED as the shim wrote, else 255
    READY            another boot id                       the same, and it left nothing to read: 255
    NOTREADY         entries in the ledger                 the stop was interrupted: exits are told, then as below

Then crid answers, and what was left is undone beside it (cri.server.tidying). One sandbox that cannot be recovered is
logged and left as it is; it never keeps the others from coming back.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable

from cri.proto import api_pb2 as api
from cri.server.checkpoint import workplace
from cri.server.daemon import Daemon
from cri.server.pods import Container, Sandbox
from cri.server.tidying import each, take_back_starts
from runtime.client import NotFound, Pod, ShimLost
from runtime.linux.cgroups import Cgroup
from runtime.linux.files import boot_id

log = logging.getLogger("crid")

#: How long a shim keeps the whole node waiting, and how often one that hangs is asked again.
SOON_SECONDS = 1.0
RETRY_SECONDS = 5.0


async def recover(daemon: Daemon) -> None:
    """Make the states true. Raises nothing for a single sandbox's sake, but what keeps the runtime from starting."""
    started = time.perf_counter()
    # The zygote imports its modules while we read ours: neither needs the other.
    await asyncio.gather(daemon.runtime.start(), _states(daemon))
    log.info(
        "recovered %d sandboxes and %d containers in %.0f ms",
        len(daemon.store.sandboxes),
        len(daemon.store.containers),
        (time.perf_counter() - started) * 1000,
    )


async def _states(daemon: Daemon) -> None:
    for line in daemon.store.load():
        log.error("left alone, with all that runs of it, for a crid that can read it, or `crid reset`: %s", line)
    daemon.ledger.strike_outlived()
    await daemon.images.recover()
    used = {key for container in daemon.store.containers for key in container.snapshots}
    daemon.orphans = sorted(daemon.images.containers.holders().keys() - used)
    await each(_reported(sandbox, _recover_sandbox(daemon, sandbox)) for sandbox in daemon.store.sandboxes)
    daemon.leftovers = workplace.leftovers(daemon)


async def _reported(sandbox: Sandbox, recovery: Awaitable[None]) -> None:
    """A recovery whose failure is logged and no more."""
    try:
        await recovery
    except Exception:
        log.exception("sandbox %s of pod %s could not be recovered; stopping it tries again", sandbox.id, sandbox.name)


async def _recover_sandbox(daemon: Daemon, sandbox: Sandbox) -> None:
    if sandbox.boot != boot_id():
        await _lost(daemon, sandbox, "the machine was restarted")
        # It was below /run; until the sandbox is removed, its entry in the ledger holds those of its containers.
        daemon.sandbox_directory(sandbox.id).mkdir(mode=0o700, parents=True, exist_ok=True)
    elif sandbox.ready or daemon.ledger.entries(holder=sandbox.id):
        await _adopt_soon(daemon, sandbox)
    else:
        sandbox.ended = True


async def _adopt_soon(daemon: Daemon, sandbox: Sandbox) -> None:
    """Adopt it; a shim that does not answer at once is waited for beside everything else."""
    adopting = asyncio.create_task(_reported(sandbox, _adopt_patiently(daemon, sandbox)))
    daemon.adopting.add(adopting)
    adopting.add_done_callback(daemon.adopting.discard)
    await asyncio.wait({adopting}, timeout=SOON_SECONDS)


async def _adopt_patiently(daemon: Daemon, sandbox: Sandbox) -> None:
    """Until its shim answers, is gone, or somebody has stopped the pod, which kills a shim that hangs."""
    while not sandbox.ended and daemon.store.sandboxes.find(sandbox.id) is sandbox:
        try:
            async with sandbox.lock:
                if sandbox.ended or sandbox.pod is not None:
                    return
                await _adopt(daemon, sandbox)
            return
        except TimeoutError as error:
            log.error("sandbox %s of pod %s: %s; tried again", sandbox.id[:13], sandbox.name, error)
        finally:
            if daemon.tidied.is_set():  # else tidying does it
                await take_back_starts(daemon)
        await asyncio.sleep(RETRY_SECONDS)


async def _adopt(daemon: Daemon, sandbox: Sandbox) -> None:
    try:
        pod = sandbox.pod = await daemon.runtime.adopt(sandbox.id)
        for container in list(sandbox.containers.values()):
            if not container.finished_at:
                await _catch_up(daemon, container, pod)
        if not all(container.running for container in sandbox.containers.values()):
            await asyncio.to_thread(_strike_ended, daemon, sandbox)
    except ShimLost as error:
        await _lost(daemon, sandbox, str(error))
    except TimeoutError:
        if sandbox.pod is not None:
            sandbox.pod.disconnect()
            sandbox.pod = None
        raise


async def _catch_up(daemon: Daemon, container: Container, pod: Pod) -> None:
    """What the records do not know yet: a start that was not written down, an end that nobody told."""
    try:
        status = await pod.container_status(container.id)
    except NotFound:
        daemon.exits.finish_lost(container, "its shim does not know it")
        status = {}
    container.pid = int(status.get("pid") or 0)
    if not container.started_at and status.get("started_at"):
        container.started_at = int(status["started_at"])
        daemon.store.save_state(container)
    daemon.exits.started(container)
    if container.state == api.CONTAINER_CREATED and container not in daemon.half_started:
        await container.lock.acquire()  # a client that starts it now waits until tidying has taken back what is there
        daemon.half_started.append(container)


def _strike_ended(daemon: Daemon, sandbox: Sandbox) -> None:
    """Strike out the cgroups of containers that ended, or never began, while nobody was there to do it."""
    ended = [container.cgroup for container in sandbox.containers.values() if not container.running]
    gone = [path for path in ended if not Cgroup(path, sandbox.layout).exists()]
    daemon.ledger.strike(*(("cgroup", path) for path in gone))


async def _lost(daemon: Daemon, sandbox: Sandbox, why: str) -> None:
    if sandbox.ready:
        log.warning("sandbox %s of pod %s is not ready any more: %s", sandbox.id[:13], sandbox.name, why)
    sandbox.pod = None
    try:
        for event in await daemon.runtime.recorded_exits(sandbox.id):
            daemon.exits.happened(event)
    finally:
        daemon.exits.sandbox_lost(sandbox, why)
