"""A crid of its own for each test, which may do with it what it likes, and an image in it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.support.crid import Crid, running_crid
from tests.support.registry import Registry


@pytest.fixture
async def crid() -> AsyncIterator[Crid]:
    async with running_crid() as crid:
        yield crid


@pytest.fixture
async def busybox(crid: Crid, registry: Registry) -> str:
    return await crid.busybox(registry)
