"""A shim forked in advance: it and its builder wait for a pod, so that a pod does not wait for them.

A fork of an interpreter takes some milliseconds, most of them to copy the pages that it will write to. They are spent
here after one pod, for the next. A spare shim is nothing but memory, and ends with its channel: no ledger has it.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any, Final

from runtime.errors import ContainerError, explain
from runtime.launcher import ZygoteLauncher
from runtime.linux.channel import Channel
from runtime.spec import FIRST_REQUEST, SandboxSpec

#: A pod that has just come is still being started, and needs the processors more.
PAUSE_SECONDS: Final = 0.1


class SpareShim:
    """At most one; all methods belong to the event loop's thread."""

    def __init__(self, zygote: ZygoteLauncher) -> None:
        self._zygote = zygote
        self._waiting: Channel | None = None
        self._preparing: asyncio.Task[None] | None = None

    def prepare(self) -> None:
        """Have one forked soon, unless one is there; returns at once."""
        if self._waiting is None and self._preparing is None:
            self._preparing = asyncio.create_task(self._prepare())

    async def _prepare(self) -> None:
        try:
            await asyncio.sleep(PAUSE_SECONDS)
            self._waiting = await self._fork()
        except (OSError, ContainerError) as error:
            print(f"no shim can be forked in advance: {explain(error)}; the next pod tries anew", file=sys.stderr)
        finally:
            self._preparing = None

    async def take(self, spec: SandboxSpec) -> Channel:
        """The channel of a shim that has been told of its pod; its answer has the number FIRST_REQUEST.

        Raises OSError, TimeoutError, ContainerError when none can be had.
        """
        create = {"id": FIRST_REQUEST, "op": "create", "spec": spec.to_json()}
        spare, self._waiting = self._waiting, None
        if spare is not None:
            try:
                spare.send(create)
                return spare
            except OSError:  # somebody has killed it
                spare.close()
        return await self._fork(create)

    async def _fork(self, told: dict[str, Any] | None = None) -> Channel:
        """The channel of a new one, with what it is `told` in it: before it can fail, and close its end."""
        ours, theirs = Channel.pair()
        try:
            if told is not None:
                ours.send(told)
            await self._zygote.fork_shim(theirs)
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        return ours

    async def close(self) -> None:
        """End the one that waits."""
        if self._preparing is not None:
            self._preparing.cancel()
            await asyncio.wait({self._preparing})
        if self._waiting is not None:
            self._waiting.close()
            self._waiting = None
