"""One crid and one registry for all tests here; each test makes its own pods and leaves none.

All run in one event loop, since a CriClient belongs to the loop it was made in.
"""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support import criu
from tests.support.crictl import Crictl, Files, covered
from tests.support.crid import Crid, running_crid
from tests.support.images import busybox_rootfs, push_image
from tests.support.registry import Registry


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/cri/" in item.path.as_posix():
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def daemon(registry: Registry) -> AsyncIterator[Crid]:
    async with running_crid() as crid:
        crid.trust_plain_http(registry.host)
        yield crid


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def checkpointing(registry: Registry) -> AsyncIterator[Crid]:
    """A crid that has a criu; skips where none works."""
    program = criu.require()
    async with running_crid(settings=f'checkpoint = {{ criu = "{program}", limit = {1 << 30} }}\n') as crid:
        crid.trust_plain_http(registry.host)
        yield crid


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def busybox(daemon: Crid, registry: Registry) -> str:
    """Reference of a pulled image: busybox with its applets as hard links."""
    pushed = push_image(registry, "busybox:1", [busybox_rootfs()], {"Cmd": ["sh"], "Env": ["FROM=image"]})
    await daemon.cri.PullImage(image={"image": pushed.ref})
    return pushed.ref


@pytest_asyncio.fixture(loop_scope="session")
async def crid(daemon: Crid) -> AsyncIterator[Crid]:
    """The daemon, for one test; whatever pods the test leaves are removed."""
    yield daemon
    await daemon.clean()


@pytest.fixture
def crictl(crid: Crid, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Crictl]:
    command = Crictl(crid.socket, tmp_path)
    yield command
    assert covered(request.function) <= command.used, "a test runs the subcommands that it says it covers"


@pytest.fixture
def files(crid: Crid, tmp_path: Path, busybox: str) -> Files:
    return Files(crid, tmp_path, busybox)


@pytest_asyncio.fixture(loop_scope="session")
async def with_runc(registry: Registry) -> AsyncIterator[tuple[Crid, str]]:
    """A crid whose default is Debian's runc, and an image in it."""
    if (program := shutil.which("runc")) is None:
        pytest.skip("runc is not installed (Debian: runc)")
    async with running_crid(settings=f'default_runtime = "runc"\nruntimes.runc.path = "{program}"') as crid:
        crid.trust_plain_http(registry.host)
        image = push_image(registry, "runc:1", [busybox_rootfs()], {"Cmd": ["sh"]}).ref
        await crid.cri.PullImage(image={"image": image})
        yield crid, image
