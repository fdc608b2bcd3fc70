"""One crid, one registry and one hostile image for all replayed escapes; around every attack, a look at the host."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.attacker import hostile_rootfs
from tests.support.canary import leftovers, unharmed
from tests.support.crid import Crid, running_crid
from tests.support.images import Layer, push_image
from tests.support.registry import Registry

REMOVAL_SECONDS = 5.0
EXTERNAL = {"runc": "/usr/sbin/runc", "crun": "/usr/bin/crun"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/escapes/" in item.path.as_posix():
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)


@pytest.fixture(scope="session")
def specifications(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of CDI specification files."""
    return tmp_path_factory.mktemp("cdi")


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def daemon(registry: Registry, specifications: Path) -> AsyncIterator[Crid]:
    """With handlers for the external runtimes; whether they are installed is for the single test to ask."""
    handlers = [f'runtimes.{name}.path = "{path}"' for name, path in EXTERNAL.items()]
    async with running_crid(settings="\n".join([f'cdi_spec_dirs = ["{specifications}"]', *handlers])) as crid:
        crid.trust_plain_http(registry.host)
        yield crid


class Forge:
    """Makes hostile images: each is pushed to the registry and pulled by crid."""

    def __init__(self, crid: Crid, registry: Registry) -> None:
        self._crid, self._registry = crid, registry
        self._number = 0

    async def image(self, *layers: Layer, **config: object) -> str:
        """The reference of an image of these layers over busybox and the attacking program."""
        self._number += 1
        stack = [hostile_rootfs(), *layers]
        pushed = push_image(self._registry, f"hostile{self._number}:1", stack, {"Cmd": ["sh"], **config})
        await self._crid.cri.PullImage(image={"image": pushed.ref})
        return pushed.ref


@pytest.fixture(scope="session")
def forge(daemon: Crid, registry: Registry) -> Forge:
    return Forge(daemon, registry)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def hostile(forge: Forge) -> str:
    """The image without anything added."""
    return await forge.image()


@pytest_asyncio.fixture(loop_scope="session")
async def crid(daemon: Crid) -> AsyncIterator[Crid]:
    """The daemon, for one test, whose pods are removed and must leave nothing."""
    yield daemon
    await daemon.clean()
    deadline = time.monotonic() + REMOVAL_SECONDS
    while found := leftovers(daemon):
        assert time.monotonic() < deadline, found
        await asyncio.sleep(0.05)


@pytest_asyncio.fixture(loop_scope="session", autouse=True)
async def canary(crid: Crid, tmp_path: Path) -> AsyncIterator[Path]:
    """A directory of the host that attacks aim at; it and the host are compared when the attack is over."""
    with unharmed(tmp_path / "canary", crid) as directory:
        yield directory
