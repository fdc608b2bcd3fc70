"""The end of a pod's life in a sandbox: hooks, signals, the grace period, and what is removed afterwards.

Needs no manifest: whatever it must know came back with the annotations of sandbox and containers.
"""

from __future__ import annotations

import asyncio
import time

from cri.client import CriClient, CriError
from cri.proto import api_pb2
from nodeagent.sync.hooks import HookFailed, run_hook
from nodeagent.sync.journal import Journal
from nodeagent.sync.observed import Container, Observed, Sandbox, State

#: Seconds that a container has after its hook or after others took all of the grace period.
LEAST_GRACE = 2.0
#: Seconds that the runtime may take beyond the grace period.
SLACK = 60.0


async def stop_sandbox(
    cri: CriClient, journal: Journal, sandbox: Sandbox, observed: Observed, grace: int | None = None
) -> None:
    """Containers first, then sidecars, the last one started first (KEP-753). Raises CriError; may be repeated.

    `grace` in seconds stands in for the pod's own, where that is longer.
    """
    deadline = time.monotonic() + (sandbox.grace if grace is None else min(grace, sandbox.grace))
    alive = [each for each in observed.of([sandbox]).containers if each.state in (State.RUNNING, State.UNKNOWN)]
    sidecars = [each for each in alive if each.role == "sidecar"]
    rest = [each for each in alive if each.role != "sidecar"]
    outcomes = await asyncio.gather(
        *(stop_container(cri, journal, sandbox, each, deadline) for each in rest), return_exceptions=True
    )
    for sidecar in sorted(sidecars, key=lambda each: each.order, reverse=True):
        await stop_container(cri, journal, sandbox, sidecar, deadline)
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
    await cri.StopPodSandbox(pod_sandbox_id=sandbox.id, timeout=SLACK)


async def stop_container(
    cri: CriClient, journal: Journal, sandbox: Sandbox, container: Container, deadline: float
) -> None:
    """`deadline` in seconds of the monotonic clock; the preStop hook uses up its part of it. Raises CriError."""
    journal.tell(sandbox.key, "Killing", f"stopping container {container.name}")
    hook = container.pre_stop
    left = deadline - time.monotonic()
    if hook is not None and left > 0 and container.state is State.RUNNING:
        try:
            await run_hook(cri, container.id, hook, left)
        except HookFailed as error:
            journal.warn(sandbox.key, "FailedPreStopHook", f"container {container.name}: {error}")
        left = max(deadline - time.monotonic(), LEAST_GRACE)
    if left <= 0 and sandbox.grace:
        left = LEAST_GRACE
    seconds = max(round(left), 0)
    request = api_pb2.StopContainerRequest(container_id=container.id, timeout=seconds)
    await cri.StopContainer(request, timeout=seconds + SLACK)


async def remove_sandbox(cri: CriClient, sandbox: Sandbox) -> None:
    """With all its containers. Raises CriError; one that is gone already is no error."""
    await cri.RemovePodSandbox(pod_sandbox_id=sandbox.id, timeout=SLACK)


async def remove_container(cri: CriClient, container: Container) -> None:
    try:
        await cri.RemoveContainer(container_id=container.id, timeout=SLACK)
    except CriError as error:
        if error.code != "NOT_FOUND":
            raise
