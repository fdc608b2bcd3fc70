"""The store: removal, garbage, snapshots, archives, built images, a full disk, and races between all of them."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from images import Image, ImageStore
from images.build import busybox_tree, directory, regular
from images.digest import Digest, chain_ids
from images.errors import DigestMismatch, DiskFull, ImageError, ImageNotFound, MalformedImage
from images.layers import name_of
from images.platform import Platform
from runtime.linux.database import DatabaseFull
from runtime.linux.ledger import Effect, Ledger
from runtime.linux.records import Records
from tests.support.faulty_registry import FaultyRegistry, stall
from tests.support.images import busybox_rootfs, push_image, push_index
from tests.support.registry import Registry


def files(root: Path) -> list[str]:
    """What is there of content and layers."""
    found = [*root.glob("content/*/**/*"), *root.glob("snapshots/*/*"), *root.glob("trash/*")]
    return sorted(str(path.relative_to(root)) for path in found if path.name not in ("sha256", "sha512"))


async def test_removal_takes_all_names_and_all_that_only_it_needs(
    store: ImageStore, registry: Registry, tmp_path: Path
) -> None:
    base = [regular("base", os.urandom(1000))]
    one, two = (push_image(registry, f"remove:{n}", [base, [regular(n, n.encode())]]) for n in ("one", "two"))
    push_image(registry, "remove:also-one", [base, [regular("one", b"one")]])
    for name in ("one", "also-one", "two"):
        await store.pull(f"{registry.host}/remove:{name}")
    await store.remove(one.ref)
    (left,) = store.list()
    assert left.id == two.image_id
    assert all(Path(layer).is_dir() for layer in (await store.containers.prepare("c1", left.id)).lower)
    assert not any(one.blobs[1][7:] in name for name in files(tmp_path / "root"))
    assert any(one.blobs[0][7:] in name for name in files(tmp_path / "root"))
    await store.containers.release("c1")
    await store.remove(left.id[:20])
    assert files(tmp_path / "root") == []
    assert (store.usage().bytes, store.usage().inodes) == (0, 0)
    with pytest.raises(ImageNotFound, match="pull it first"):
        await store.remove(one.ref)


async def test_a_container_keeps_the_layers_of_a_removed_image(
    store: ImageStore, registry: Registry, tmp_path: Path
) -> None:
    image = await store.pull(push_image(registry, "kept:1").ref)
    rootfs = await store.containers.prepare("c1", image.id, holder="sandbox")
    await store.remove(image.id)
    assert all(Path(layer).is_dir() for layer in rootfs.lower)
    with pytest.raises(ImageNotFound):
        await store.containers.prepare("c2", image.id)
    assert store.containers.holders() == {"c1": "sandbox"}
    await store.containers.release("c1")
    await store.containers.release("c1")
    await store.gc()
    assert files(tmp_path / "root") == []


async def test_preparing_again_gives_the_same(store: ImageStore, registry: Registry) -> None:
    image = await store.pull(push_image(registry, "twice:1").ref)
    first = await store.containers.prepare("c1", image.id)
    Path(first.upper, "written").write_text("kept")
    assert await store.containers.prepare("c1", image.id) == first
    assert Path(first.upper, "written").exists()


@pytest.mark.parametrize("key", ["", ".", "..", "../x", "a/b", "/abs", "a\0b", "x" * 200, "-x", ".hidden"])
async def test_keys_that_are_no_names(store: ImageStore, registry: Registry, key: str) -> None:
    image = await store.pull(push_image(registry, "keys:1").ref)
    for call in (store.containers.prepare(key, image.id), store.containers.release(key), store.containers.usage(key)):
        with pytest.raises(ValueError, match="key"):
            await call
    assert store.containers.holders() == {}


def disk_usage(path: Path) -> int:
    done = subprocess.run(["du", "-s", "--block-size=1", path], capture_output=True, text=True, check=True)
    return int(done.stdout.split()[0])


async def test_usage_is_near_what_the_disk_says(store: ImageStore, registry: Registry, tmp_path: Path) -> None:
    tree = [regular(f"d{n % 7}/f{n}", os.urandom(n * 40)) for n in range(300)]
    await store.pull(push_image(registry, "usage:1", [tree]).ref)
    usage = store.usage()
    measured = sum(disk_usage(tmp_path / "root" / part) for part in ("content/blobs", "snapshots/layers"))
    assert abs(usage.bytes - measured) < 0.1 * measured
    assert abs(usage.inodes - 300) < 15


async def test_pulls_and_removals_at_once(store: ImageStore, registry: Registry, tmp_path: Path) -> None:
    """Whatever the order, an image that was pulled is whole, and in the end nothing is left."""
    base = [regular("base", os.urandom(300_000))]
    refs = [push_image(registry, f"race:{n}", [base, [regular("own", b"%d" % n)]]).ref for n in range(4)]

    async def churn(ref: str, number: int) -> None:
        for turn in range(8):
            image = await store.pull(ref)
            if (number + turn) % 3 == 0:
                await store.gc()
            try:
                rootfs = await store.containers.prepare(f"c{number}-{turn}", image.id)
            except ImageNotFound:
                continue  # another one's removal came between
            assert Path(rootfs.lower[1], "base").stat().st_size == 300_000
            assert Path(rootfs.lower[0], "own").exists()
            await store.remove(image.id) if store.get(image.id) else None
            assert Path(rootfs.lower[1], "base").exists()
            await store.containers.release(f"c{number}-{turn}")

    await asyncio.gather(*(churn(ref, number) for number, ref in enumerate(refs * 2)))
    for image in store.list():
        await store.remove(image.id)
    await store.gc()
    assert files(tmp_path / "root") == []


async def test_an_image_that_is_removed_while_a_pull_reads_its_config(
    store: ImageStore, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    pushed = push_image(registry, "read:1", [[regular("x", b"x")]])
    await store.pull(pushed.ref)
    loop, read = asyncio.get_running_loop(), store._content.read

    def late(digest: Digest, limit: int) -> bytes:
        asyncio.run_coroutine_threadsafe(store.remove(pushed.image_id), loop).result(20)
        return read(digest, limit)

    monkeypatch.setattr(store._content, "read", late)
    assert (await store.pull(pushed.ref)).id == pushed.image_id
    assert [image.id for image in store.list()] == [pushed.image_id]


async def test_a_store_that_starts_again(
    store: ImageStore, registry: Registry, tmp_path: Path, ledger: Ledger, records: Records
) -> None:
    image = await store.pull(push_image(registry, "restart:1").ref)
    rootfs = await store.containers.prepare("c1", image.id, holder="pod")
    before = store.usage()
    again = ImageStore(tmp_path / "root", ledger, records, pinned=[image.repo_tags[0]])
    await again.recover()
    (found,) = again.list()
    assert found.pinned
    assert (found.id, found.config, found.layers) == (image.id, image.config, image.layers)
    assert (again.usage(), again.containers.holders()) == (before, {"c1": "pod"})
    assert await again.containers.prepare("c1", image.id) == rootfs
    await again.close()


async def test_what_nobody_wrote_down_goes_at_the_start(
    store: ImageStore, registry: Registry, tmp_path: Path, ledger: Ledger, records: Records
) -> None:
    """A foreign directory, a lost layer, stale entries: as after a power cut."""
    image = await store.pull(push_image(registry, "power:1", [[regular("x", b"x")], [regular("y", b"y")]]).ref)
    other = await store.pull(push_image(registry, "power:2", [[regular("z", b"z")]]).ref)
    root = tmp_path / "root"
    lower = (await store.containers.prepare("c1", image.id)).lower
    shutil.rmtree(lower[0])
    for name in ("snapshots/layers/foreign", "snapshots/unpacking/half", "snapshots/containers/ghost", "trash/x"):
        (root / name / "sub").mkdir(parents=True)
    (root / "content/ingest/sha256-foreign").write_text("x")
    again = ImageStore(root, ledger, records)
    await again.recover()
    assert [found.id for found in again.list()] == [other.id]
    assert {entry.key for entry in ledger.entries("snapshot")} == {
        "containers/c1",
        f"layers/{name_of(image.layers[0])}",
        f"layers/{name_of(other.layers[0])}",
    }
    assert not (root / "content/ingest/sha256-foreign").exists()
    assert sorted(path.name for path in (root / "snapshots/layers").iterdir()) == sorted(
        name_of(layer) for layer in (image.layers[0], other.layers[0])
    )
    assert [path.name for path in (root / "snapshots/containers").iterdir()] == ["c1"]
    await again.close()


async def test_an_image_that_claims_the_layer_of_another(
    store: ImageStore, registry: Registry, tmp_path: Path, ledger: Ledger, records: Records
) -> None:
    """Its diff id begins as the other's; what it has promised it is not, and only itself goes for that."""
    victim = push_image(registry, "claimed:victim", [[regular("base", b"base")]])
    claim = victim.diff_ids[0][:-32] + "0" * 32
    hostile = push_image(registry, "claimed:hostile", [[regular("false", b"false")]], claimed=[claim])
    image = await store.pull(victim.ref)
    (lower,) = (await store.containers.prepare("c1", image.id)).lower
    with pytest.raises(DigestMismatch, match="unpacks to"):
        await store.pull(hostile.ref)
    assert os.listdir(lower) == ["base"]
    again = ImageStore(tmp_path / "root", ledger, records)
    await again.recover()
    assert [found.id for found in again.list()] == [image.id]
    assert os.listdir(lower) == ["base"]
    await again.close()


@pytest.mark.parametrize("renamed", [False, True], ids=["killed before the rename", "killed after the rename"])
async def test_layers_that_an_earlier_version_named(
    store: ImageStore, registry: Registry, tmp_path: Path, ledger: Ledger, records: Records, renamed: bool
) -> None:
    """By the first digits of their chain id; also when a crash comes between the steps of the renaming."""
    image = await store.pull(push_image(registry, "earlier:1", [[regular("base", b"base")]]).ref)
    (entry,) = ledger.entries("snapshot")
    new = tmp_path / "root/snapshots" / entry.key
    old = Effect("snapshot", f"layers/{image.layers[0].hex[:32]}", detail=entry.detail)
    ledger.record(old)
    if not renamed:
        new.rename(tmp_path / "root/snapshots" / old.key)
    again = ImageStore(tmp_path / "root", ledger, records)
    await again.recover()
    (lower,) = (await again.containers.prepare("c1", image.id)).lower
    assert (Path(lower), os.listdir(lower)) == (new, ["base"])
    await again.containers.release("c1")
    assert [found.key for found in ledger.entries("snapshot")] == [entry.key]
    await again.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """8 MiB and 200 inodes."""
    path = tmp_path / "root"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m,nr_inodes=200", "images-test", str(path)], check=True)
    yield path
    subprocess.run(["umount", str(path)], check=True)


@pytest.mark.parametrize(
    "layers",
    [
        [[regular("zeros", bytes(12 << 20))]],
        [[regular("random", os.urandom(12 << 20))]],
        [[regular(f"d/{n}", b"") for n in range(400)]],
        [[regular("ok", b"ok")], [directory(f"d{n}") for n in range(400)]],
        [[regular("zeros", bytes(12 << 20))], [regular("random", os.urandom(5 << 20))]],
    ],
    ids=["unpacked does not fit", "blob does not fit", "too many files", "second layer", "while another one comes"],
)
async def test_a_full_disk(
    small_disk: Path, store: ImageStore, registry: Registry, ledger: Ledger, layers: list[list[object]]
) -> None:
    pushed = push_image(registry, "full:1", layers)  # type: ignore[arg-type]
    with pytest.raises(DiskFull, match="free some"):
        await store.pull(pushed.ref)
    assert store.list() == []
    await store.gc()
    assert files(small_disk) == []
    assert ledger.entries() == []
    small = push_image(registry, "full:small", [[regular("small", b"fits")]])
    assert (await store.pull(small.ref)).id == small.image_id


@pytest.mark.parametrize("kind", ["ingest", "snapshot"])
async def test_a_database_that_is_full(
    store: ImageStore,
    registry: Registry,
    ledger: Ledger,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
) -> None:
    """Of two layers one comes, half of it, and the other one cannot be written down."""
    pushed = push_image(registry, f"database:{kind}", [[regular("one", os.urandom(100_000))], [regular("two", b"2")]])
    two = chain_ids([Digest(text) for text in pushed.diff_ids])[1]
    refused = {f"sha256-{pushed.blobs[1][7:]}", f"layers/{name_of(two)}"}
    record, comes = ledger.record, threading.Event()

    def full(*effects: Effect) -> None:
        if effects[0].kind == kind and effects[0].key in refused:
            comes.wait(20)
            raise DatabaseFull("the database is full; free space")
        record(*effects)

    monkeypatch.setattr(ledger, "record", full)
    async with FaultyRegistry(registry) as faulty:
        faulty.add(pushed.blobs[0], stall(1000))
        pulling = asyncio.create_task(store.pull(pushed.ref.replace(registry.host, faulty.host)))
        await faulty.until_asked(pushed.blobs[0])
        comes.set()
        with pytest.raises(DiskFull, match="free space"):
            await pulling
    assert ledger.entries() == []
    assert list((tmp_path / "root/content/ingest").iterdir()) == []


async def test_a_disk_that_is_full_for_containers(small_disk: Path, store: ImageStore, registry: Registry) -> None:
    image = await store.pull(push_image(registry, "inodes:1", [[regular("x", b"x")]]).ref)
    prepared = 0
    with pytest.raises(DiskFull, match="container"):
        for prepared in range(200):
            await store.containers.prepare(f"c{prepared}", image.id)
    assert len(store.containers.holders()) == len(list((small_disk / "snapshots/containers").iterdir())) == prepared
    await store.containers.release("c0")
    await store.containers.prepare("again", image.id)


def skopeo(*argv: str) -> None:
    subprocess.run(["skopeo", "copy", "--src-tls-verify=false", *argv], check=True, capture_output=True, timeout=60)


@pytest.mark.parametrize(
    ("form", "layers"),
    [
        ("oci", "gzip"),
        ("oci", "zstd"),
        ("oci-archive", "zstd"),
        ("docker-archive", "gzip"),
        ("docker-archive", "plain"),
    ],
)
async def test_archives_of_skopeo(
    store: ImageStore, registry: Registry, tmp_path: Path, form: str, layers: str
) -> None:
    # The same data twice: docker archives list the file twice.
    same = [regular("same", b"same")]
    pushed = push_image(registry, f"archive:{layers}", [busybox_rootfs(), same, same], form=layers)
    archive = tmp_path / "archive"
    skopeo(f"docker://{pushed.ref}", f"{form}:{archive}:example.com/imported:v1")
    (image,) = await store.import_archive(archive)
    assert (image.id, image.repo_tags) == (pushed.image_id, ("example.com/imported:v1",))
    rootfs = await store.containers.prepare("c1", image.id)
    assert len(rootfs.lower) == 3
    (renamed,) = await store.import_archive(archive, "other:2")
    assert renamed.repo_tags == ("docker.io/library/other:2", "example.com/imported:v1")


async def test_a_layout_of_several_platforms(store: ImageStore, registry: Registry, tmp_path: Path) -> None:
    ours = push_image(registry, "layout:ours", [[regular("ours", b"1")]])
    other = push_image(registry, "layout:other", [[regular("o", b"2")]], platform=Platform("linux", "s390x"))
    push_index(registry, "layout:all", {str(Platform.host()): ours, "linux/s390x": other})
    skopeo("--all", f"docker://{registry.host}/layout:all", f"oci:{tmp_path}/layout:it")
    with pytest.raises(ImageError, match="give it a name"):
        await store.import_archive(tmp_path / "layout")
    (image,) = await store.import_archive(tmp_path / "layout", "named")
    assert image.id == ours.image_id


async def test_archives_that_are_none(store: ImageStore, registry: Registry, tmp_path: Path) -> None:
    pushed = push_image(registry, "broken:1", [[regular("x", b"x")]])
    good = tmp_path / "good"
    skopeo(f"docker://{pushed.ref}", f"oci:{good}:example.com/broken:1")
    (tmp_path / "whole.tar.gz").write_bytes(gzip.compress(b"x" * 2000))
    (tmp_path / "garbage").write_bytes(os.urandom(5000))
    (tmp_path / "empty").mkdir()
    for name, error, says in (
        ("whole.tar.gz", ImageError, "decompress it first"),
        ("garbage", MalformedImage, "tar"),
        ("empty", ImageNotFound, "manifest.json"),
        ("missing", OSError, "missing"),
    ):
        with pytest.raises(error, match=says):
            await store.import_archive(tmp_path / name)
    blob = good / "blobs/sha256" / pushed.blobs[0][7:]
    blob.write_bytes(blob.read_bytes()[:-1] + b"!")
    with pytest.raises(DigestMismatch):
        await store.import_archive(good)
    blob.unlink()
    blob.symlink_to("/etc/passwd")
    with pytest.raises(ImageError):
        await store.import_archive(good)
    index = json.loads((good / "index.json").read_text())
    index["manifests"][0]["digest"] = "sha256:../../index.json"
    (good / "index.json").write_text(json.dumps(index))
    with pytest.raises(MalformedImage, match=r"manifests\[0\]"):
        await store.import_archive(good)
    assert store.list() == []


async def test_built_images_are_the_same_each_time(store: ImageStore) -> None:
    async def build(name: str) -> Image:
        return await store.build_from_files(name, busybox_tree(), {"Cmd": ["sh"]})

    one, two = await build("demo:1"), await build("demo:2")
    assert one.id == two.id
    assert two.repo_tags == ("docker.io/library/demo:1", "docker.io/library/demo:2")
    assert two.repo_digests == ()
    root = Path((await store.containers.prepare("c1", one.id)).lower[0])
    assert os.stat(root / "bin/sh").st_ino == os.stat(root / "bin/busybox").st_ino


async def test_an_image_whose_binary_needs_libraries_is_refused() -> None:
    with pytest.raises(ImageError, match="busybox-static"):
        busybox_tree(Path("/bin/true"))
    with pytest.raises(ImageError, match="busybox-static"):
        busybox_tree(Path("/nonexistent"))
