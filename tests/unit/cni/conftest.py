"""A directory for plugins that are shell scripts, and a network of them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from cni.attachment import Attachment
from cni.network import Cni
from runtime.linux.ledger import Ledger

RESULT = {"cniVersion": "1.1.0", "ips": [{"address": "10.0.0.2/24"}]}


class Programs:
    """Plugins that are shell scripts, each of which notes down what it is called with."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.bin = root / "bin"
        self.bin.mkdir()

    def write(self, kind: str, body: str = "") -> None:
        """A plugin; without a body it answers every ADD with RESULT."""
        body = body or f"[ $CNI_COMMAND = ADD ] && echo '{json.dumps(RESULT)}'; exit 0"
        path = self.bin / kind
        path.write_text(
            f"#!/bin/sh\ncat >>{self.root}/{kind}.in; env >{self.root}/{kind}.env\n"
            f'echo "$CNI_COMMAND {kind}" >>{self.root}/calls\necho >>{self.root}/{kind}.in\n{body}\n'
        )
        path.chmod(0o755)

    def calls(self) -> list[str]:
        """Commands and plugins, in order, since the last look."""
        path = self.root / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return lines

    def requests(self, kind: str) -> list[dict[str, Any]]:
        """The configurations that a plugin got."""
        return [json.loads(line) for line in (self.root / f"{kind}.in").read_text().splitlines() if line]

    def environment(self, kind: str) -> dict[str, str]:
        """The environment of a plugin's last call."""
        pairs = (line.partition("=") for line in (self.root / f"{kind}.env").read_text().splitlines())
        return {name: value for name, _, value in pairs}


@pytest.fixture
def programs(tmp_path: Path) -> Programs:
    return Programs(tmp_path)


class Networks:
    """Networks of programs, and pods that are nothing but names."""

    def __init__(self, root: Path, programs: Programs) -> None:
        self.root = root
        self.programs = programs
        self.ledger = Ledger(root / "ledger.db", "crid")
        self.netns = root / "netns"
        self.netns.touch()
        self._open: list[Cni] = []

    def cni(self, *plugins: dict[str, Any], timeout: float = 10, **keys: Any) -> Cni:
        """A network of plugins by their configurations."""
        doc = {"cniVersion": "1.1.0", "name": "net", "plugins": list(plugins), **keys} if plugins else None
        self._open.append(
            Cni(
                self.root / "net.d",
                [self.programs.bin],
                self.root / "cache",
                self.ledger,
                default_conflist=doc,
                builtin={},
                plugin_timeout=timeout,
            )
        )
        return self._open[-1]

    def pod(self, container_id: str = "c1", **options: Any) -> Attachment:
        """An attachment."""
        return Attachment(container_id, str(self.netns), **options)

    def cached(self) -> set[str]:
        """The files of the result cache."""
        directory = self.root / "cache" / "results"
        return {path.name for path in directory.iterdir()} if directory.exists() else set()


@pytest_asyncio.fixture
async def networks(tmp_path: Path, programs: Programs) -> AsyncIterator[Networks]:
    made = Networks(tmp_path, programs)
    yield made
    for cni in made._open:
        await cni.close()
    made.ledger.close()
