"""What a former run has left is undone, and nobody waits for ever for that, whatever fails or comes late."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from cri.server import recovery
from cri.server.tidying import tidy
from runtime.linux.cgroups import CgroupError


class Shim:
    """One that knows a container whose start was under way, and hangs when it is asked about another."""

    def __init__(self) -> None:
        self.removed: list[str] = []

    async def container_status(self, id: str) -> dict[str, Any]:
        if id == "hangs":
            raise TimeoutError("the shim does not answer")
        return {}

    async def remove_container(self, id: str) -> None:
        self.removed.append(id)

    def disconnect(self) -> None:
        pass


def pod(*names: str) -> Any:
    sandbox = SimpleNamespace(
        id="s", name="ns/pod", ended=False, ready=True, pod=None, lock=asyncio.Lock(), boot=recovery.boot_id()
    )
    sandbox.containers = {
        name: SimpleNamespace(
            id=name,
            name=name,
            sandbox=sandbox,
            started_at=0,
            finished_at=0,
            running=True,
            state=0,
            cgroup="/c",
            lock=asyncio.Lock(),
        )
        for name in names
    }
    return sandbox


def daemon(shim: Shim, sandbox: Any, *, collect: Callable[[], Any], destroy: Callable[[], Any]) -> Any:
    async def adopt(id: str) -> Shim:
        return shim

    async def recover(live: list[str]) -> list[str]:
        await collect()
        return []

    async def destroy_lost(id: str) -> None:
        await destroy()

    class Sandboxes(list[Any]):
        def find(self, id: str) -> Any:
            return sandbox

    return SimpleNamespace(
        tidied=asyncio.Event(),
        half_started=[],
        orphans=[],
        leftovers=[],
        store=SimpleNamespace(sandboxes=Sandboxes([sandbox]), unread=frozenset()),
        images=SimpleNamespace(containers=SimpleNamespace(holders=dict)),
        exits=SimpleNamespace(started=lambda container: None),
        runtime=SimpleNamespace(adopt=adopt, destroy_lost=destroy_lost),
        cni=SimpleNamespace(recover=recover),
        ledger=SimpleNamespace(
            entries=lambda kind="", holder="": [SimpleNamespace(holder="half-made")] if kind == "dir" else [],
            strike=lambda *entries: None,
        ),
    )


async def nothing() -> None:
    """Nothing comes in between."""


async def fails() -> None:
    raise CgroupError("no cgroup hierarchy is mounted")


async def test_a_shim_that_is_adopted_while_the_network_is_collected() -> None:
    sandbox, shim = pod("main"), Shim()

    async def adopt_late() -> None:
        await recovery._adopt_patiently(scene, sandbox)
        assert sandbox.containers["main"].lock.locked()

    scene = daemon(shim, sandbox, collect=adopt_late, destroy=nothing)
    await tidy(scene)
    assert not sandbox.containers["main"].lock.locked()
    assert shim.removed == ["main"]


async def test_a_half_made_sandbox_that_cannot_be_taken_back() -> None:
    sandbox, shim = pod("main"), Shim()
    scene = daemon(shim, sandbox, collect=nothing, destroy=fails)
    await recovery._adopt_patiently(scene, sandbox)
    await tidy(scene)
    assert not sandbox.containers["main"].lock.locked()
    assert scene.tidied.is_set()


async def test_a_shim_that_hangs_halfway_through_its_adoption() -> None:
    """Until it is asked again, its containers can be removed."""
    sandbox, shim = pod("main", "hangs"), Shim()
    scene = daemon(shim, sandbox, collect=nothing, destroy=nothing)
    scene.tidied.set()
    adopting = asyncio.create_task(recovery._adopt_patiently(scene, sandbox))
    await asyncio.wait({adopting}, timeout=0.1)
    assert not sandbox.containers["main"].lock.locked()
    sandbox.ended = True
    adopting.cancel()
