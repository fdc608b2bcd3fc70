"""A host and pods for every test, each in a network namespace that is thrown away."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from cni.attachment import Attachment
from cni.default import default_conflist
from cni.network import Cni
from runtime.linux.ledger import Ledger
from tests.support.netns import Netns, fresh_host

SUBNET = "10.201.0.0/24"
SUBNET6 = "fd00:c9::/64"
TABLE = "na_test"


@pytest.fixture(autouse=True)
def host() -> Iterator[None]:
    with fresh_host():
        yield


@pytest.fixture
def netns(host: None) -> Iterator[Callable[[], Netns]]:
    """Makes network namespaces that end with the test."""
    made: list[Netns] = []

    def make() -> Netns:
        made.append(Netns())
        return made[-1]

    yield make
    for namespace in made:
        namespace.close()


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = Ledger(tmp_path / "ledger.db", "crid")
    yield opened
    opened.close()


class Node:
    """A host with a network: makes pods and attaches them."""

    def __init__(self, root: Path, ledger: Ledger, make_netns: Callable[[], Netns]) -> None:
        self.root = root
        self.ledger = ledger
        self.conf_dir = root / "net.d"
        self.bin_dir = root / "bin"
        self.leases = root / "cache" / "networks" / "br0"
        self._make_netns = make_netns
        self._count = 0
        self._open: list[Cni] = []

    def cni(self, conflist: dict[str, Any] | None = None, **options: Any) -> Cni:
        """The network of the test: the default one, on IPv4, unless a conflist is given."""
        conflist = conflist or default_conflist("br0", SUBNET, nft_table=TABLE)
        bin_dirs = [self.bin_dir, Path("/usr/lib/cni")]
        cni = Cni(self.conf_dir, bin_dirs, self.root / "cache", self.ledger, default_conflist=conflist, **options)
        self._open.append(cni)
        return cni

    def pod(self, **options: Any) -> tuple[Netns, Attachment]:
        """A pod's namespace and its attachment."""
        namespace = self._make_netns()
        self._count += 1
        container_id = f"{self._count:064x}"
        return namespace, Attachment(container_id, namespace.path, netlink=namespace.netlink, **options)

    async def close(self) -> None:
        for cni in self._open:
            await cni.close()


@pytest_asyncio.fixture
async def node(tmp_path: Path, ledger: Ledger, netns: Callable[[], Netns]) -> AsyncIterator[Node]:
    made = Node(tmp_path, ledger, netns)
    yield made
    await made.close()
