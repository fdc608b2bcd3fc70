"""Work that many ask for at once and that is done once: a pull, a blob, a layer.

Whoever asks while it is under way shares the outcome. Work that nobody waits for any more is cancelled, and whoever
asks again while it is being undone waits for that first, so it never runs twice side by side.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Hashable
from contextlib import asynccontextmanager
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class _Flight(Generic[T]):
    __slots__ = ("aboard", "leaving", "task")

    def __init__(self, task: asyncio.Task[T]) -> None:
        self.task = task
        self.aboard = 0
        self.leaving = False


class Flights(Generic[T]):
    """The work of one kind that is under way, by key. For one event loop."""

    def __init__(self) -> None:
        self._flights: dict[Hashable, _Flight[T]] = {}

    async def join(self, key: Hashable, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """The outcome of the work under way for `key`, or of make(); raises what that raises."""
        async with self.aboard(key, make) as task:
            return await asyncio.shield(task)

    @asynccontextmanager
    async def aboard(self, key: Hashable, make: Callable[[], Coroutine[Any, Any, T]]) -> AsyncIterator[asyncio.Task[T]]:
        """The work itself, not done yet; await it through asyncio.shield() only. Leaving the block leaves the work."""
        while (flight := self._flights.get(key)) is not None and (flight.leaving or flight.task.done()):
            await asyncio.wait([flight.task])
        if flight is None:
            flight = self._flights[key] = _Flight(asyncio.create_task(make()))
            flight.task.add_done_callback(lambda task: self._landed(key, task))
        flight.aboard += 1
        try:
            yield flight.task
        finally:
            flight.aboard -= 1
            if not flight.aboard and not flight.task.done():
                flight.leaving = True
                flight.task.cancel()
                await asyncio.wait([flight.task])

    def under_way(self, key: Hashable) -> bool:
        """Whether there is work for `key`."""
        return key in self._flights

    def _landed(self, key: Hashable, task: asyncio.Task[T]) -> None:
        del self._flights[key]
        if not task.cancelled():
            task.exception()  # perhaps nobody is left to see it; asyncio would complain about that

    async def close(self) -> None:
        """Cancel everything and wait until it is undone."""
        tasks = [flight.task for flight in self._flights.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
