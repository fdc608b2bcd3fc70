"""One node for all tests that ask for `node`; each makes its own pods and leaves none.

They run in one event loop, since a CriClient belongs to the loop it was made in.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.support.node import Node, running_node


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/node/" in item.path.as_posix() and "node" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def shared_node() -> AsyncIterator[Node]:
    async with running_node() as node:
        yield node


@pytest_asyncio.fixture(loop_scope="session")
async def node(shared_node: Node) -> AsyncIterator[Node]:
    """The node, for one test; pods that the test leaves are ended."""
    yield shared_node
    for manifest in shared_node.manifests.iterdir():
        manifest.unlink()
    if shared_node.agent is None or shared_node.agent.poll() is not None:
        await shared_node.start_agent()
    await shared_node.until_gone()
