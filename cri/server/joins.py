"""Operations that a second request for the same thing joins instead of repeating or refusing.

A client whose deadline passed asks again for the sandbox that is still being made. Refusing it ("name is reserved")
leaves pods stuck for minutes; so the second request waits for the first one's outcome.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from cri.server.errors import AlreadyExists

T = TypeVar("T")


@dataclass(slots=True)
class _UnderWay(Generic[T]):
    asked: bytes
    task: asyncio.Task[T]


class Joins(Generic[T]):
    """Operations under way by key. They run in tasks of their own: no client can end one by going away."""

    def __init__(self, noun: str) -> None:
        self._noun = noun
        self._under_way: dict[Hashable, _UnderWay[T]] = {}

    def __contains__(self, key: Hashable) -> bool:
        return key in self._under_way

    async def run(self, key: Hashable, asked: bytes, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """The outcome of the operation under way for `key`, or of `make()`; `asked` is what the request says.

        Raises AlreadyExists when what is under way was asked for in other words.
        """
        current = self._under_way.get(key)
        if current is None:
            task = asyncio.create_task(make())
            current = self._under_way[key] = _UnderWay(asked, task)
            task.add_done_callback(lambda _: self._under_way.pop(key, None))
        elif current.asked != asked:
            raise AlreadyExists(
                f"{self._noun} {key} is being made from another configuration; use another attempt number"
            )
        return await asyncio.shield(current.task)

    async def settle(self, timeout: float) -> None:
        """Wait up to `timeout` seconds for all that is under way; for a graceful stop."""
        if self._under_way:
            await asyncio.wait([entry.task for entry in self._under_way.values()], timeout=timeout)
