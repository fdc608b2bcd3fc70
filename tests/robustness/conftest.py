"""One street for all tests here, in one event loop, since a CriClient belongs to the loop it was made in."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.support.neighbourhood import Neighbourhood, neighbours
from tests.support.registry import Registry


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/robustness/" in item.path.as_posix():
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def neighbourhood(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Neighbourhood]:
    async with neighbours(registry, tmp_path_factory.mktemp("stuck") / "mount") as found:
        yield found


@pytest_asyncio.fixture(loop_scope="session")
async def street(neighbourhood: Neighbourhood) -> AsyncIterator[Neighbourhood]:
    """For one test, whose pods are removed; after it, others are served."""
    yield neighbourhood
    await neighbourhood.serves()
    await neighbourhood.clean()
