"""A runtime for each test module's tests, with a state directory of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from runtime.client import Pod
from tests.support.containers import Node


@pytest_asyncio.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    node = Node(tmp_path, tmp_path / "state")
    await node.runtime.start()
    try:
        yield node
    finally:
        await node.cleanup()


@pytest_asyncio.fixture
async def pod(node: Node) -> Pod:
    return await node.pod(hostname="pod-host")
