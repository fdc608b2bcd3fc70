"""A call that blocks costs its own caller the deadline, and nobody else anything."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from nodeagent.volumes.deadline import within


async def test_results_and_errors_come_through() -> None:
    assert await within(5, max, 1, 2) == 2
    with pytest.raises(ZeroDivisionError):
        await within(5, divmod, 1, 0)


async def test_hanging_calls_do_not_stop_others() -> None:
    release = threading.Event()

    def hang() -> None:
        release.wait(30)
        raise OSError("late")

    hanging = [asyncio.create_task(within(0.3, hang)) for _ in range(40)]
    await asyncio.sleep(0)
    started = time.monotonic()
    assert await within(5, max, 1, 2) == 2
    assert time.monotonic() - started < 2
    for task in hanging:
        with pytest.raises(TimeoutError, match="hang has not ended after 0"):
            await task
    release.set()
