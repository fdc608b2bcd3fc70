"""Work done once for many: joined, cancelled with its last waiter, never twice at the same time."""

from __future__ import annotations

import asyncio

import pytest

from images.flights import Flights


class Work:
    """Counts its runs; each waits for `go`, and takes a moment to undo itself when it is cancelled."""

    def __init__(self) -> None:
        self.begun = self.undone = self.at_once = self.most = 0
        self.go = asyncio.Event()

    async def __call__(self) -> int:
        self.begun += 1
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        number = self.begun
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0.01)
            self.undone += 1
            raise
        finally:
            self.at_once -= 1
        return number


async def test_many_share_one_run() -> None:
    flights, work = Flights[int](), Work()
    tasks = [asyncio.create_task(flights.join("key", work)) for _ in range(10)]
    await asyncio.sleep(0)
    work.go.set()
    assert await asyncio.gather(*tasks) == [1] * 10
    assert await flights.join("key", work) == 2
    assert not flights.under_way("key")


async def test_a_failure_is_everybodys_and_is_forgotten() -> None:
    flights = Flights[int]()

    async def fail() -> int:
        await asyncio.sleep(0)
        raise OSError("broken")

    outcomes = await asyncio.gather(*(flights.join("key", fail) for _ in range(3)), return_exceptions=True)
    assert [str(outcome) for outcome in outcomes] == ["broken"] * 3
    work = Work()
    work.go.set()
    assert await flights.join("key", work) == 1


async def test_one_who_leaves_does_not_disturb_the_others() -> None:
    flights, work = Flights[int](), Work()
    leaver, stayer = (asyncio.create_task(flights.join("key", work)) for _ in range(2))
    await asyncio.sleep(0.01)
    leaver.cancel()
    await asyncio.wait([leaver])
    assert leaver.cancelled()
    assert work.undone == 0
    work.go.set()
    assert await stayer == 1


async def test_the_last_one_to_leave_waits_until_it_is_undone() -> None:
    flights, work = Flights[int](), Work()
    tasks = [asyncio.create_task(flights.join("key", work)) for _ in range(2)]
    await asyncio.sleep(0.01)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert (work.begun, work.undone) == (1, 1)


async def test_a_newcomer_waits_for_the_undoing_and_begins_anew() -> None:
    flights, work = Flights[int](), Work()
    leaver = asyncio.create_task(flights.join("key", work))
    await asyncio.sleep(0.01)
    leaver.cancel()
    await asyncio.sleep(0)  # the run is being undone now
    newcomer = asyncio.create_task(flights.join("key", work))
    work.go.set()
    assert await newcomer == 2
    assert (work.undone, work.most) == (1, 1)


async def test_close_cancels_what_is_under_way() -> None:
    flights, work = Flights[int](), Work()
    task = asyncio.create_task(flights.join("key", work))
    await asyncio.sleep(0.01)
    await flights.close()
    assert work.undone == 1
    with pytest.raises(asyncio.CancelledError):
        await task
