"""When to ask again, and how long to wait before it."""

from __future__ import annotations

import asyncio
import random

from images.errors import RegistryError

#: No answer, or one that says that a later one may be better.
RETRIED = frozenset({0, 408, 429, 500, 502, 503, 504})
LONGEST_WAIT = 10.0


def worth_retrying(error: RegistryError) -> bool:
    """Whether the same request may succeed a little later."""
    return error.status in RETRIED


async def pause(attempt: int, first: float) -> None:
    """Wait after the `attempt`-th failure: `first` seconds, then twice as long each time.

    Spread at random, so that many nodes do not come back at the same moment.
    """
    await asyncio.sleep(min(LONGEST_WAIT, first * 2 ** (attempt - 1)) * random.uniform(0.5, 1.0))
