"""One container into one archive; what CheckpointContainer and CheckpointPod have in common.

The container is paused from before its memory is read until its files have been copied, so both are of one moment.
Should crid die, the shim lets it go on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import time
from collections.abc import AsyncIterator, Sequence

from cri.proto import api_pb2 as api
from cri.server.checkpoint import archive
from cri.server.checkpoint.documents import documents_of
from cri.server.checkpoint.dump import LOG, dump
from cri.server.checkpoint.workplace import IMAGES, WORK, partial, scratch
from cri.server.daemon import Daemon
from cri.server.errors import WrongState
from cri.server.pods import Container, Sandbox
from cri.server.specs.sources import look
from runtime.linux.cgroups import Cgroup
from runtime.linux.failpoints import failpoint

log = logging.getLogger("crid")

FAILPOINTS = ("crid.checkpoint.paused", "crid.checkpoint.dumped", "crid.checkpoint.written")


def check_container(container: Container) -> None:
    """Raises WrongState for one that cannot be checkpointed whatever criu there is."""
    if not container.running:
        state = api.ContainerState.Name(container.state)
        raise WrongState(f"container {container.id[:13]} ({container.name}) is {state}; only a running one can be")
    check_kind(container.sandbox, container.spec.pid_target)


def check_kind(sandbox: Sandbox, pid_target: str) -> None:
    """Raises WrongState for containers whose processes CRIU cannot restore where they would have to be."""
    if sandbox.options.HasField("userns_options") and sandbox.options.userns_options.mode == api.POD:
        raise WrongState(f"pod {sandbox.name} has a user namespace; checkpoints are for pods without one")
    if sandbox.runtime is not None:
        raise WrongState(f"pod {sandbox.name} has an external runtime; checkpoints are for the built-in one")
    if pid_target:
        raise WrongState(f"a container of pod {sandbox.name} shares the PID namespace of another; CRIU takes one whole")


@contextlib.asynccontextmanager
async def paused(containers: Sequence[Container]) -> AsyncIterator[None]:
    """None of them runs in the block; all of them do after it, whatever happens. Raises TimeoutError, OSError.

    When crid stops meanwhile, criu may be in the middle of its work: its shim knows when they may go on.
    """
    cgroups = [Cgroup(container.cgroup, container.sandbox.layout) for container in containers]
    stopping = False
    try:
        await _freeze(cgroups, True)
        yield
    except asyncio.CancelledError:
        stopping = True
        raise
    finally:
        if not stopping:
            await asyncio.shield(_freeze(cgroups, False))


async def _freeze(cgroups: Sequence[Cgroup], frozen: bool) -> None:
    outcomes = await asyncio.gather(
        *(asyncio.to_thread(cgroup.freeze, frozen) for cgroup in cgroups), return_exceptions=True
    )
    for outcome in outcomes:
        if isinstance(outcome, BaseException) and not isinstance(outcome, FileNotFoundError):  # that one has ended
            raise outcome


async def take(daemon: Daemon, container: Container, program: str, location: str, seconds: float) -> None:
    """Write a paused container's archive to `location`; raises WrongState, AlreadyExists, Exhausted, OSError."""
    limit, started = daemon.config.checkpoint.limit, time.perf_counter()
    async with scratch(daemon) as place:
        failpoint("crid.checkpoint.paused")
        await dump(container, program, place / IMAGES, place / WORK, seconds)
        failpoint("crid.checkpoint.dumped")
        await daemon.images.containers.write_changes(container.snapshots[0], place / archive.ROOTFS, limit)
        for name in (LOG, archive.STATISTICS):
            with contextlib.suppress(FileNotFoundError):
                os.rename(place / WORK / name, place / name)
        temporary = f"{os.path.dirname(location)}/.{os.path.basename(location)}.{secrets.token_hex(4)}"
        async with partial(daemon, temporary):
            documents = documents_of(container)
            arguments = (temporary, location, documents, place, place / IMAGES, limit)
            size = await look(os.path.dirname(location), archive.write_archive, *arguments, seconds=seconds)
            failpoint("crid.checkpoint.written")
    took = (time.perf_counter() - started) * 1000
    log.info("checkpoint of %s at %s: %d bytes in %.0f ms", container.name, location, size, took)
