"""crictl, the ecosystem's own command for a CRI socket, and a book of which of its subcommands are tested.

    @covers("runp", "rmp")
    async def test_...(crictl): ...

A test says which subcommands it is about; the fixture `crictl` (tests/cri/conftest.py) holds it to that, and
test_crictl.py compares the whole book with what `crictl --help` lists.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from tests.support import peers
from tests.support.crid import Crid
from tests.support.outside import Said, run

F = TypeVar("F", bound=Callable[..., Any])


def covers(*verbs: str) -> Callable[[F], F]:
    """Mark a test as one that runs these subcommands."""

    def mark(test: F) -> F:
        test.crictl_verbs = verbs  # type: ignore[attr-defined]
        return test

    return mark


def covered(test: Callable[..., Any]) -> set[str]:
    """What a test said of itself with `covers`."""
    return set(getattr(test, "crictl_verbs", ()))


class Crictl:
    """crictl for one socket; its configuration file is written into `home`. Skips the test without crictl."""

    def __init__(self, socket: Path, home: Path) -> None:
        self.config = home / "crictl.yaml"
        self.config.write_text(f"runtime-endpoint: unix://{socket}\nimage-endpoint: unix://{socket}\ntimeout: 30\n")
        self.command: list[str] = [str(peers.require("crictl")), "--config", str(self.config)]
        self.used: set[str] = set()

    def words(self, *arguments: str | Path) -> list[str]:
        """The command line of a subcommand, for a test that starts it itself."""
        self.used.add(str(arguments[0]))
        return [*self.command, *map(str, arguments)]

    async def __call__(self, *arguments: str | Path, stdin: bytes | None = None) -> Said:
        return await run(*self.words(*arguments), stdin=stdin)

    async def text(self, *arguments: str | Path) -> str:
        """stdout of a command that has to succeed."""
        said = await self(*arguments)
        assert said.code == 0, f"crictl {' '.join(map(str, arguments))}: {said.err.decode()}"
        return said.out.decode().strip()

    async def json(self, verb: str, *arguments: str | Path) -> Any:
        return json.loads(await self.text(verb, "-o", "json", *arguments))

    async def template(self, verb: str, template: str, *arguments: str | Path) -> str:
        return await self.text(verb, "-o", "go-template", "--template", template, *arguments)


class Files:
    """Configuration files of a pod and a container, as crictl reads them."""

    SCRIPT = "echo started; echo to stderr >&2; trap 'exit 3' TERM; while :; do sleep 0.1; done"

    def __init__(self, crid: Crid, folder: Path, image: str) -> None:
        config = crid.pod_config("web")
        self.folder = folder
        self.name = config.metadata.name
        self.logs = Path(config.log_directory)
        metadata = {"name": self.name, "namespace": "test", "uid": config.metadata.uid, "attempt": 1}
        self.pod_config: dict[str, Any] = {
            "metadata": metadata,
            "log_directory": config.log_directory,
            "hostname": "web",
            "labels": {"app": "web"},
            "linux": {},
        }
        self.container_config: dict[str, Any] = {
            "metadata": {"name": "main"},
            "image": {"image": image},
            "command": ["sh", "-c", self.SCRIPT],
            "labels": {"tier": "front"},
            "log_path": "main.log",
            "linux": {},
        }

    @property
    def pod(self) -> Path:
        return self._file("pod.json", self.pod_config)

    @property
    def container(self) -> Path:
        return self._file("container.json", self.container_config)

    def _file(self, name: str, content: dict[str, Any]) -> Path:
        path = self.folder / name
        path.write_text(json.dumps(content))
        return path
