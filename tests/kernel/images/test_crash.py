"""kill -9 at every step of a pull, a container's layer and a removal: the next start finds nothing half-done."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from images import ImageStore
from images.build import regular
from images.layers import name_of
from images.store import FAILPOINTS
from runtime.linux import failpoints
from runtime.linux.ledger import Ledger
from runtime.linux.records import Records
from tests.support.images import busybox_rootfs, push_image
from tests.support.registry import Registry

ROOT = Path(__file__).parents[3]
DAEMON = """
import asyncio, sys
from pathlib import Path
from images import ImageStore
from runtime.linux.ledger import Ledger
from runtime.linux.records import Records

async def main(directory, ref):
    store = ImageStore(directory / "root", Ledger(directory / "node.db", "crid"), Records(directory / "node.db"))
    await store.recover()
    image = await store.pull(ref)
    await store.containers.prepare("c1", image.id, holder="pod")
    await store.containers.release("c1")
    await store.remove(image.id)

asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
"""


def live(directory: Path, ref: str, armed: str) -> int:
    """Run a small daemon through an image's whole life; its exit status."""
    command = [sys.executable, "-c", DAEMON, str(directory), ref]
    environment = {**os.environ, failpoints.VARIABLE: armed}
    return subprocess.run(command, cwd=ROOT, env=environment, timeout=60, check=False).returncode


def test_every_failpoint_of_the_package_is_listed() -> None:
    found = {
        line.split('failpoint("')[1].partition('"')[0]
        for file in (ROOT / "images").rglob("*.py")
        for line in file.read_text().splitlines()
        if 'failpoint("' in line
    }
    assert sorted(found) == sorted(FAILPOINTS)


@pytest.mark.parametrize("arrival", [1, 2, 3])
@pytest.mark.parametrize("name", FAILPOINTS)
async def test_kill(
    registry: Registry, tmp_path: Path, ledger: Ledger, records: Records, name: str, arrival: int
) -> None:
    layers = [busybox_rootfs(), [regular("a", b"a")], [regular("b", os.urandom(2 << 20))]]
    pushed = push_image(registry, "crash:1", layers)
    if live(tmp_path, pushed.ref, f"{name}=kill@{arrival}") != -signal.SIGKILL:
        assert arrival > 1, "the failpoint was never reached"
        return  # nor so often
    store = ImageStore(tmp_path / "root", ledger, records)
    await store.recover()
    for key in store.containers.holders():
        await store.containers.release(key)
    root = tmp_path / "root"
    on_disk = {f"layers/{path.name}" for path in (root / "snapshots/layers").iterdir()}
    assert on_disk == {entry.key for entry in ledger.entries("snapshot")}
    assert {path.name for path in (root / "content/ingest").iterdir()} == {e.key for e in ledger.entries("ingest")}
    for folder in ("snapshots/unpacking", "snapshots/containers", "trash"):
        assert list((root / folder).iterdir()) == []
    needed = {f"layers/{name_of(layer)}" for image in store.list() for layer in image.layers}
    assert on_disk == needed, "layers without an image are collected at the start"
    image = await store.pull(pushed.ref)
    assert Path((await store.containers.prepare("c2", image.id)).lower[-1], "bin/sh").exists()
    await store.containers.release("c2")
    await store.remove(image.id)
    assert ledger.entries() == []
    assert store.usage().bytes == 0
    await store.close()


#: Where nothing can fail that leaves the process alive, and what is not reached here.
NO_ERRORS = ("images.ingest.after_rename", "images.image.removed", "images.collect.thrown")


@pytest.mark.parametrize("name", [name for name in FAILPOINTS if name not in NO_ERRORS])
async def test_an_error_is_undone_at_once(
    registry: Registry, tmp_path: Path, ledger: Ledger, records: Records, name: str
) -> None:
    """Without a restart in between: a failing step undoes itself, and the next attempt succeeds."""
    pushed = push_image(registry, "error:1", [busybox_rootfs(), [regular("a", b"a")]])
    store = ImageStore(tmp_path / "root", ledger, records)
    await store.recover()
    failpoints.arm(f"{name}=error@1")
    try:
        with pytest.raises(failpoints.FailpointError):
            image = await store.pull(pushed.ref)
            await store.containers.prepare("c1", image.id)
            await store.containers.release("c1")
    finally:
        failpoints.arm("")
    image = await store.pull(pushed.ref)
    await store.containers.prepare("c1", image.id)
    await store.containers.release("c1")
    await store.remove(image.id)
    await store.gc()
    assert ledger.entries() == []
    assert list((tmp_path / "root/snapshots/unpacking").iterdir()) == []
    await store.close()
