"""`crid import` and `crid reset`: verbs on the root of a crid that does not run."""

from __future__ import annotations

import asyncio
import subprocess
import sys

from runtime.linux.ledger import read_ledger
from tests.support.crid import ROOT, Crid, running_crid


async def verb(crid: Crid, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cri.server.main", *words, "--config", str(crid.config)]
    return await asyncio.to_thread(subprocess.run, command, cwd=ROOT, capture_output=True, text=True, timeout=60)


async def test_an_imported_image_is_there_after_the_next_start() -> None:
    async with running_crid() as crid:
        refused = await verb(crid, "import", "--busybox", "localhost/busybox:1")
        assert refused.returncode == 1
        assert "another crid uses" in refused.stderr
        await crid.terminate()
        done = await verb(crid, "import", "--busybox", "localhost/busybox:1")
        assert done.returncode == 0, done.stderr
        again = await verb(crid, "import", "--busybox", "localhost/other:1")
        assert again.stdout.split()[0] == done.stdout.split()[0], "the same files are the same image"
        missing = await verb(crid, "import", "--archive", "/no/such/file.tar")
        assert missing.returncode == 1
        assert "/no/such/file.tar" in missing.stderr
        await crid.start()
        (image,) = (await crid.cri.ListImages()).images
        assert sorted(image.repo_tags) == ["localhost/busybox:1", "localhost/other:1"]


async def test_reset_ends_pods_that_outlived_their_crid_and_purge_leaves_no_file() -> None:
    async with running_crid() as crid:
        await crid.terminate()
        await verb(crid, "import", "--busybox", "localhost/busybox:1")
        await crid.start()
        sandbox = await crid.run_pod()
        id = await crid.run(sandbox, "localhost/busybox:1", ["sleep", "600"])
        refused = await verb(crid, "reset")
        assert refused.returncode == 1
        crid.kill()
        done = await verb(crid, "reset")
        assert (done.returncode, done.stderr.count("left")) == (0, 0), done.stderr
        kinds = {entry.kind for entry in read_ledger(crid.root / "ledger.db")}
        assert kinds <= {"snapshot", "dir"}, "layers of images stay"
        await crid.start()
        assert (await crid.cri.ListPodSandbox()).items == []
        assert len((await crid.cri.ListImages()).images) == 1
        assert not (await crid.cri.ListContainers(filter={"id": id})).containers
        await crid.terminate()
        purged = await verb(crid, "reset", "--purge")
        assert purged.returncode == 0, purged.stderr
        assert not crid.root.exists()
        assert not crid.state.exists()
