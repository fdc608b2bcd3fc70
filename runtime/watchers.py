"""The containers of a pod that could take hold of others at birth, paused while one is born.

With CAP_SYS_PTRACE a container can seize any process in its PID namespace. An exec arrives there as a finished process
(`runtime.arrival`); a container cannot, because the procfs that is mounted for it shows the namespace of whoever mounts
it. So for the milliseconds between clone and execve of a container, those that could look are frozen (cgroup.freeze).

Should crid die in between, its shim notices the lost connection and lets them go on.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from runtime import state
from runtime.errors import ContainerError
from runtime.linux.caps import CAP_SYS_PTRACE, NAMES
from runtime.linux.cgroups import Cgroup

_CAPABILITY = NAMES[CAP_SYS_PTRACE]


class Watchers:
    """Those of one pod; all methods belong to the event loop's thread."""

    def __init__(self, state_dir: str, *, known: bool) -> None:
        """`known`: the pod is new and has none. Else they are found on disk when they are first needed."""
        self._state_dir = state_dir
        self._cgroups: dict[str, str] | None = {} if known else None
        self._births = 0
        self._pausing = asyncio.Lock()

    def add(self, record: Mapping[str, Any]) -> None:
        """A container runs; `record` is what `runtime.preparation` has written of it."""
        if self._cgroups is not None and _watches(record):
            self._cgroups[record["container"]] = record["cgroup"]

    def remove(self, container_id: str) -> None:
        """It is gone."""
        if self._cgroups is not None:
            self._cgroups.pop(container_id, None)

    @contextlib.asynccontextmanager
    async def paused(self) -> AsyncIterator[None]:
        """Nobody looks while the block runs. Raises ContainerError when one cannot be paused, OSError.

        Also after the block, when one does not go on; the others do.
        """
        if self._cgroups is None:
            records = await asyncio.to_thread(state.read_containers, self._state_dir)
            self._cgroups = {doc["container"]: doc["cgroup"] for doc in records if _watches(doc)}
        paths = list(self._cgroups.values())
        if not paths:
            yield
            return
        self._births += 1
        try:
            async with self._pausing:
                await asyncio.to_thread(_pause, paths)
            yield
        finally:
            self._births -= 1
            await asyncio.shield(self._resume(paths))

    async def _resume(self, paths: Sequence[str]) -> None:
        async with self._pausing:
            if not self._births:
                await asyncio.to_thread(_resume, paths)


def _watches(record: Mapping[str, Any]) -> bool:
    if state.has_ended(dict(record)):
        return False
    sets = (record.get("process") or {}).get("capabilities") or {}
    return any(_CAPABILITY in (sets.get(name) or ()) for name in ("bounding", "permitted"))


def _pause(paths: Sequence[str]) -> None:
    for path in paths:
        try:
            Cgroup(path).freeze(True)
        except FileNotFoundError:
            continue  # it has ended
        except TimeoutError as error:
            raise ContainerError(
                f"another container of the pod, in {path}, has CAP_SYS_PTRACE and could take hold of this one while it "
                "starts, and it cannot be paused: a process of it hangs in the kernel"
            ) from error


def _resume(paths: Sequence[str]) -> None:
    failed: OSError | None = None
    for path in paths:
        try:
            Cgroup(path).freeze(False)
        except FileNotFoundError:
            continue  # it has ended
        except OSError as error:
            failed = failed or error
    if failed:
        raise failed
