"""`crid import` and `crid reset`: verbs on the root of a crid that does not run."""

from __future__ import annotations

from runtime.linux.ledger import read_ledger
from tests.support.crid import running_crid


async def test_an_imported_image_is_there_after_the_next_start() -> None:
    async with running_crid() as crid:
        refused = await crid.verb("import", "--busybox", "localhost/busybox:1")
        assert refused.returncode == 1
        assert "another crid uses" in refused.stderr
        await crid.terminate()
        done = await crid.verb("import", "--busybox", "localhost/busybox:1")
        assert done.returncode == 0, done.stderr
        again = await crid.verb("import", "--busybox", "localhost/other:1")
        assert again.stdout.split()[0] == done.stdout.split()[0], "the same files are the same image"
        missing = await crid.verb("import", "--archive", "/no/such/file.tar")
        assert missing.returncode == 1
        assert "/no/such/file.tar" in missing.stderr
        await crid.start()
        (image,) = (await crid.cri.ListImages()).images
        assert sorted(image.repo_tags) == ["localhost/busybox:1", "localhost/other:1"]


async def test_reset_ends_pods_that_outlived_their_crid_and_purge_leaves_no_file() -> None:
    async with running_crid() as crid:
        await crid.terminate()
        await crid.verb("import", "--busybox", "localhost/busybox:1")
        await crid.start()
        sandbox = await crid.run_pod()
        id = await crid.run(sandbox, "localhost/busybox:1", ["sleep", "600"])
        refused = await crid.verb("reset")
        assert refused.returncode == 1
        crid.kill()
        done = await crid.verb("reset")
        assert (done.returncode, done.stderr.count("left")) == (0, 0), done.stderr
        kinds = {entry.kind for entry in read_ledger(crid.root / "ledger.db")}
        assert kinds <= {"snapshot", "dir"}, "layers of images stay"
        await crid.start()
        assert (await crid.cri.ListPodSandbox()).items == []
        assert len((await crid.cri.ListImages()).images) == 1
        assert not (await crid.cri.ListContainers(filter={"id": id})).containers
        await crid.terminate()
        purged = await crid.verb("reset", "--purge")
        assert purged.returncode == 0, purged.stderr
        assert not crid.root.exists()
        assert not crid.state.exists()
