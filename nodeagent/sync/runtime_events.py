"""The runtime's events: which pod to look at. Their content is not believed, only their timing is used.

    stream opens   -> list once, again a moment later (nobody says when a stream begins to carry), then by events
    stream ends    -> open it again: the runtime was restarted, or it dropped us as too slow
    no such stream -> list every POLL seconds: CRI-O has events switched off unless told otherwise

RELIST is a safety net for events that a runtime forgets; nothing waits for it in a working node.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable

from cri.client import CriClient, CriError
from nodeagent.node import Node
from nodeagent.pods.pod import Key
from nodeagent.translate.marks import NODE

log = logging.getLogger(__name__)

RELIST = 90.0
POLL = 2.0
SETTLE = 1.0
#: Seconds between attempts to open the stream.
PAUSES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


class RuntimeEvents:
    """`look_at` is called for each pod that something happened to, `list_all` when anything may have."""

    def __init__(
        self, cri: CriClient, node: Node, look_at: Callable[[Key], None], list_all: Callable[[], Awaitable[None]]
    ) -> None:
        self._cri = cri
        self._node = node
        self._look_at = look_at
        self._list_all = list_all
        self.connected = False
        self.problem = "not connected yet"

    async def run(self) -> None:
        """Until cancelled."""
        failures = 0
        while True:
            opened = time.monotonic()
            try:
                await self._list_all()
                self._connected()
                await self._watch()
            except CriError as error:
                self._lost(error)
            failures = 0 if time.monotonic() - opened > PAUSES[-1] else failures + 1
            await asyncio.sleep(PAUSES[min(failures, len(PAUSES) - 1)])

    async def _watch(self) -> None:
        """By events, or by lists where there are none. Raises CriError when the runtime goes away."""
        opened = time.monotonic()
        try:
            await self._follow()
        except CriError as error:
            if error.code != "UNIMPLEMENTED":
                raise
            await self._poll("it has no event stream")
        if time.monotonic() - opened < SETTLE:
            await self._poll("it ends its event stream at once")

    async def _follow(self) -> None:
        """Until the stream ends. Raises CriError."""
        net = asyncio.create_task(self._relist())
        try:
            async for event in self._cri.GetContainerEvents(timeout=None):
                sandbox = event.pod_sandbox_status
                if not sandbox.id:
                    # A runtime that has forgotten the sandbox already cannot say whose it was.
                    await self._list_all()
                elif sandbox.labels.get(NODE) == self._node.name:
                    self._look_at(Key(sandbox.metadata.namespace, sandbox.metadata.name))
        finally:
            net.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await net

    async def _relist(self) -> None:
        pause = SETTLE
        while True:
            await asyncio.sleep(pause)
            try:
                await self._list_all()
            except CriError as error:
                # A runtime that hangs keeps its stream open and says nothing in it.
                self._lost(error)
                pause = PAUSES[-1]
            else:
                self._connected()
                pause = RELIST

    async def _poll(self, why: str) -> None:
        """For ever, or until the runtime goes away. Raises CriError."""
        log.warning("runtime: %s: its pods are listed every %g s instead", why, POLL)
        while True:
            await self._list_all()
            await asyncio.sleep(POLL)

    def _connected(self) -> None:
        if not self.connected:
            log.info("runtime: connected to %s", self._cri.address)
        self.connected, self.problem = True, ""

    def _lost(self, error: CriError) -> None:
        if self.connected or self.problem != str(error):
            log.warning("runtime: %s; pods go on, trying again", error)
        self.connected, self.problem = False, str(error)
