"""An image store in a directory of its own, and a registry that all tests of a module push to."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from images import ImageStore
from images.limits import Limits
from runtime.linux.ledger import Ledger
from runtime.linux.records import Records
from tests.support.registry import Registry


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with Registry(tmp_path_factory.mktemp("registry")) as running:
        yield running


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = Ledger(tmp_path / "node.db", "crid")
    yield opened
    opened.close()


@pytest.fixture
def records(tmp_path: Path) -> Iterator[Records]:
    opened = Records(tmp_path / "node.db")
    yield opened
    opened.close()


@pytest.fixture
async def store(tmp_path: Path, ledger: Ledger, records: Records) -> AsyncIterator[ImageStore]:
    """Patience is short here: a stalled or dead registry is given up within seconds."""
    limits = Limits(silence_seconds=1.0, document_seconds=5.0, attempts=3, first_pause=0.02)
    made = ImageStore(tmp_path / "root", ledger, records, registries=[tmp_path / "certs.d"], limits=limits)
    await made.recover()
    yield made
    await made.close()
