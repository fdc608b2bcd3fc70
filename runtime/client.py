"""The runtime as crid sees it: asyncio calls to shims, and their events.

    runtime = Runtime(state, on_event=...)       Runtime: starts shims, finds them again
    pod = await runtime.create_sandbox(spec)     Pod: one shim, everything that is done to one pod
    await pod.start_container(spec)
    code = await (await pod.exec(...)).wait()    Exec: one more process in a container

crid itself never forks and never enters a namespace: a zygote forks the shims, a shim forks the containers.
Every call has a deadline. A shim that dies, hangs or speaks nonsense costs its own pod and no other: calls on that Pod
raise ShimLost or TimeoutError, and one ShimLostEvent is sent. Stop, kill and remove are idempotent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from runtime import recovery, state
from runtime.criu import PID_NAMESPACE_FD, STREAM_FDS
from runtime.criu import ROOT as STAGED_ROOT
from runtime.criu import TREE as STAGED_TREE
from runtime.errors import ContainerError, InvalidSpec, NotFound, ShimLost, StartError, explain
from runtime.events import Event, Exited, ShimLostEvent
from runtime.launcher import ZygoteLauncher
from runtime.linux.channel import Channel
from runtime.pod import Pod
from runtime.running import Attachment, Exec, Started
from runtime.spare import SpareShim
from runtime.spec import SandboxSpec

__all__ = [
    "PID_NAMESPACE_FD",
    "STAGED_ROOT",
    "STAGED_TREE",
    "STREAM_FDS",
    "Attachment",
    "ContainerError",
    "Event",
    "Exec",
    "Exited",
    "InvalidSpec",
    "NotFound",
    "Pod",
    "Runtime",
    "ShimLost",
    "ShimLostEvent",
    "StartError",
    "Started",
    "ZygoteLauncher",
    "explain",
]

CREATE_SECONDS = 30.0
ZYGOTE_TRIES = 3


class Runtime:
    """Starts a zygote, and through it shims; finds the shims of earlier runs again."""

    def __init__(
        self, state_root: Path, *, on_event: Callable[[Event], None], zygote: ZygoteLauncher | None = None
    ) -> None:
        """`state_root` is the state directory (sandboxes live in its sandboxes/). `on_event` is called in the loop.

        `zygote` may have been begun already.
        """
        self._root = state_root
        self._on_event = on_event
        self._zygote = zygote or ZygoteLauncher()
        self._spare = SpareShim(self._zygote)

    async def start(self) -> None:
        """Start the zygote; from now on it is started again whenever it dies. Raises OSError, TimeoutError."""
        await self._zygote.start()
        self._spare.prepare()

    async def close(self) -> None:
        """End the zygote. Shims and containers go on, and adopt() finds them."""
        await self._spare.close()
        await self._zygote.close()

    async def create_sandbox(self, spec: SandboxSpec) -> Pod:
        """Fork a shim that makes the pod's namespaces. When this raises, nothing is left of it but `spec.state_dir`."""
        for _ in range(ZYGOTE_TRIES):
            try:
                return await self._create(spec)
            except ShimLost:
                if state.read_shim(spec.state_dir):
                    raise
                # No shim was ever there: the zygote died with the request in its hands.
        raise ContainerError(f"no zygote lives long enough to fork the shim of sandbox {spec.id}")

    async def _create(self, spec: SandboxSpec) -> Pod:
        pod = Pod(spec.id, spec.state_dir, await self._spare.take(spec), self._on_event)
        try:
            await pod.born(CREATE_SECONDS)
        except BaseException as error:
            pod.disconnect()
            if isinstance(error, TimeoutError):
                self._zygote.restart()  # it has no state to lose, and it may be what hangs
            if state.read_shim(spec.state_dir):  # written before anything is made; what is the caller's there stays
                await asyncio.shield(asyncio.to_thread(recovery.destroy_lost, spec.state_dir))
            raise
        self._spare.prepare()
        return pod

    async def try_user_namespace(self, directory: str) -> str:
        """Why pods whose images are below `directory` cannot have a user namespace here; "" if they can."""
        try:
            return await self._zygote.try_user_namespace(directory)
        except (ContainerError, OSError) as error:
            return explain(error)

    async def adopt(self, sandbox_id: str) -> Pod:
        """Connect to the shim of an earlier run; its exits since then are sent as events before this returns.

        Raises ShimLost when there is none that answers: destroy_lost() then ends what it has left.
        """
        directory = str(self._root / "sandboxes" / sandbox_id)
        try:
            channel = await asyncio.to_thread(Channel.connect, f"{directory}/{state.SOCKET}")
        except OSError as error:
            raise ShimLost(f"the shim of sandbox {sandbox_id} cannot be reached at {directory}: {error}") from error
        pod = Pod(sandbox_id, directory, channel, self._on_event)
        try:
            await pod.adopt()
        except BaseException:
            pod.disconnect()
            raise
        return pod

    async def recorded_exits(self, sandbox_id: str) -> list[Exited]:
        """The exits that a lost shim had written down; nothing is undone."""
        directory = str(self._root / "sandboxes" / sandbox_id)
        docs = await asyncio.to_thread(state.read_containers, directory)
        return [Exited.from_json(sandbox_id, doc) for doc in docs if state.has_ended(doc)]

    def has_state(self, sandbox_id: str) -> bool:
        """Whether what a shim has written of itself is still there."""
        return bool(state.read_shim(str(self._root / "sandboxes" / sandbox_id)))

    async def destroy_lost(self, sandbox_id: str, remembered: Mapping[str, Any] | None = None) -> list[Exited]:
        """Kill and remove all that a lost shim has left: processes, cgroups, pins. Returns the exits it had written.

        `remembered` helps where its state directory was emptied (`runtime.recovery`).
        Idempotent. What it cannot undo raises OSError, and a later call tries again.
        """
        directory = str(self._root / "sandboxes" / sandbox_id)
        exits = await asyncio.to_thread(recovery.destroy_lost, directory, remembered)
        return [Exited.from_json(sandbox_id, doc) for doc in exits]
