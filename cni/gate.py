"""Who may work at the same time: one operation on a container, any number on others, and nobody while GC runs.

SPEC.md, section 3, "Lifecycle & Ordering".
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator


class Gate:
    """For one event loop; waiting is in order of arrival."""

    def __init__(self) -> None:
        self._changed = asyncio.Condition()
        self._busy: set[str] = set()
        self._exclusive = False
        self._waiting_exclusive = 0

    @contextlib.asynccontextmanager
    async def for_container(self, container_id: str) -> AsyncIterator[None]:
        """Alone with a container."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._free_for(container_id))
            self._busy.add(container_id)
        try:
            yield
        finally:
            async with self._changed:
                self._busy.discard(container_id)
                self._changed.notify_all()

    @contextlib.asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """Alone with all containers; those that come meanwhile wait, so that this cannot be put off for ever."""
        async with self._changed:
            self._waiting_exclusive += 1
            try:
                await self._changed.wait_for(lambda: not self._busy and not self._exclusive)
                self._exclusive = True
            finally:
                self._waiting_exclusive -= 1
                self._changed.notify_all()
        try:
            yield
        finally:
            async with self._changed:
                self._exclusive = False
                self._changed.notify_all()

    def _free_for(self, container_id: str) -> bool:
        return not self._exclusive and not self._waiting_exclusive and container_id not in self._busy
