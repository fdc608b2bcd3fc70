"""Layers that try to get out: refused or contained, and never a byte changed outside."""

from __future__ import annotations

import gzip
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from images import ImageStore
from images.blobs import BlobReader, Growth
from images.build import directory, hardlink, regular, symlink
from images.digest import Digest
from images.errors import ImageError, MalformedImage, TooLarge, UnsafeLayer
from images.limits import Limits
from images.unpack.layer import LayerUnpack
from tests.support.images import push_image
from tests.support.registry import Registry
from tests.support.tars import raw_entry, tar

FILE, LINK, SYMLINK, CHAR, BLOCK, DIRECTORY, FIFO = b"0", b"1", b"2", b"3", b"4", b"5", b"6"
SMALL = Limits(unpacked=8 << 20, ratio=100, ratio_free=1 << 20, entries=50, depth=40)


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """A directory beside the layer, compared byte by byte and inode by inode at the end."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "canary").write_text("sings")
    (outside / "canary").chmod(0o640)
    before = state(outside)
    yield outside
    assert state(outside) == before


def state(path: Path) -> list[tuple[object, ...]]:
    return [
        (str(p), p.lstat().st_ino, p.lstat().st_mode, p.lstat().st_nlink, p.lstat().st_mtime_ns, p.lstat().st_uid)
        for p in (path, *path.rglob("*"))
    ]


def unpack(tmp_path: Path, data: bytes, limits: Limits = SMALL, below: list[Path] | None = None) -> Path:
    blob, layer = tmp_path / "blob", tmp_path / "layer"
    blob.write_bytes(data)
    layer.mkdir()
    plain = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    unpacking = LayerUnpack(layer, Digest.of(plain), limits)
    try:
        with BlobReader(Growth.complete(blob, len(data))) as reader:
            unpacking.extract(reader)
        unpacking.settle(below or [])
    finally:
        unpacking.close()
    return layer


@pytest.mark.parametrize("kind", [FILE, LINK, SYMLINK, CHAR, DIRECTORY, FIFO])
@pytest.mark.parametrize("name", [b"../outside/canary", b"a/../../outside/canary", b"..", b"./../x", b"a/..", b"/../x"])
def test_names_that_climb(tmp_path: Path, outside: Path, kind: bytes, name: bytes) -> None:
    with pytest.raises(UnsafeLayer, match="climbs out"):
        unpack(tmp_path, tar(raw_entry(name, kind, link=b"target")))
    assert os.listdir(tmp_path / "layer") == []


@pytest.mark.parametrize("prefix", [b"/", b"//", b"./", b"/./", b"././/"])
def test_absolute_names_are_inside(tmp_path: Path, outside: Path, prefix: bytes) -> None:
    name = os.fsencode(outside / "canary")
    layer = unpack(tmp_path, tar(raw_entry(prefix + name, FILE, b"inside")))
    assert (layer / name.decode().lstrip("/")).read_text() == "inside"


@pytest.mark.parametrize(
    "target", [b"/", b"{outside}", b"../../../../../..{outside}", b"/proc/self/root{outside}", b"../outside", b".."]
)
@pytest.mark.parametrize("what", ["file", "directory", "symlink", "device", "hardlink", "whiteout", "opaque", "mode"])
def test_a_link_to_the_outside_is_not_a_way_out(tmp_path: Path, outside: Path, target: bytes, what: str) -> None:
    """The link itself is content and stays; whatever goes through it lands inside the layer, or is refused."""
    link = raw_entry(b"x", SYMLINK, link=target.replace(b"{outside}", os.fsencode(outside)))
    through = {
        "file": raw_entry(b"x/canary", FILE, b"overwritten"),
        "directory": raw_entry(b"x/made/deep", DIRECTORY),
        "symlink": raw_entry(b"x/canary", SYMLINK, link=b"elsewhere"),
        "device": raw_entry(b"x/canary", CHAR, device=(1, 3)),
        "hardlink": raw_entry(b"stolen", LINK, link=b"x/canary"),
        "whiteout": raw_entry(b"x/.wh.canary"),
        "opaque": raw_entry(b"x/.wh..wh..opq"),
        "mode": raw_entry(b"x/", DIRECTORY, mode=0o4777, uid=1000),
    }[what]
    try:
        layer = unpack(tmp_path, tar(link, through))
    except (UnsafeLayer, MalformedImage):
        return
    assert not (layer / "stolen").exists()
    inode = (outside / "canary").stat().st_ino
    assert all(path.lstat().st_ino != inode for path in layer.rglob("*"))


def test_a_hard_link_to_the_outside(tmp_path: Path, outside: Path) -> None:
    for target in (os.fsencode(outside / "canary"), b"../outside/canary", b"/etc/passwd"):
        with pytest.raises((UnsafeLayer, MalformedImage)):
            unpack(tmp_path, tar(raw_entry(b"stolen", LINK, link=target)))
        assert not (tmp_path / "layer/stolen").exists()
        os.system(f"rm -r {tmp_path}/layer")


def test_a_hard_link_to_a_symbolic_link_links_the_link(tmp_path: Path, outside: Path) -> None:
    """CVE-2021-32760: a later entry of the same name must not change what the link points to."""
    link = symlink("x", str(outside / "canary"))
    layer = unpack(tmp_path, tar(link, hardlink("y", "x"), raw_entry(b"y", LINK, link=b"x", mode=0o7777, uid=1)))
    assert (layer / "y").is_symlink()
    assert (layer / "y").lstat().st_ino == (layer / "x").lstat().st_ino


def test_a_file_replaces_a_link_instead_of_writing_through_it(tmp_path: Path, outside: Path) -> None:
    layer = unpack(tmp_path, tar(symlink("x", str(outside / "canary")), regular("x", b"mine", 0o4755)))
    assert not (layer / "x").is_symlink()
    assert (layer / "x").read_text() == "mine"


def test_a_directory_that_becomes_a_link_while_files_go_into_it(tmp_path: Path, outside: Path) -> None:
    """The fd of the directory is held while the archive swaps it; nothing may follow the new link."""
    data = tar(
        directory("x"),
        regular("x/one", b"1"),
        symlink("x", str(outside)),
        regular("x/canary", b"overwritten"),
    )
    try:
        layer = unpack(tmp_path, data)
    except UnsafeLayer:
        return
    assert (layer / str(outside)[1:] / "canary").read_text() == "overwritten"


def test_a_link_in_a_lower_layer_is_not_followed_either(tmp_path: Path, outside: Path) -> None:
    below = tmp_path / "below"
    below.mkdir()
    (below / "etc").symlink_to(outside)
    (below / "hard").symlink_to(outside / "canary")
    layer = unpack(tmp_path, tar(regular("etc/canary", b"mine")), below=[below])
    assert (layer / "etc/canary").read_text() == "mine"
    assert stat.S_IMODE((layer / "etc").stat().st_mode) == 0o755
    os.system(f"rm -r {layer}")
    with pytest.raises(MalformedImage, match="no layer has as a file"):
        unpack(tmp_path, tar(hardlink("stolen", "hard")), below=[below])


def test_devices_are_made_but_only_there(tmp_path: Path, outside: Path) -> None:
    """The specification allows devices; what a container may open of them is its device cgroup's matter."""
    layer = unpack(
        tmp_path,
        tar(
            raw_entry(b"dev/sda", BLOCK, device=(8, 0), mode=0o666, uid=7),
            raw_entry(b"dev/null", CHAR, device=(1, 3), mode=0o666),
            raw_entry(b"fifo", FIFO, mode=0o622),
        ),
    )
    disk, null = (layer / "dev/sda").lstat(), (layer / "dev/null").lstat()
    assert stat.S_ISBLK(disk.st_mode)
    assert (disk.st_rdev, stat.S_IMODE(disk.st_mode), disk.st_uid) == (os.makedev(8, 0), 0o666, 7)
    assert stat.S_ISCHR(null.st_mode)
    assert stat.S_ISFIFO((layer / "fifo").lstat().st_mode)
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700


@pytest.mark.parametrize(
    "name", [b".wh.", b".wh..", b".wh...", b"a/.wh..", b"d" * 101, b"a" * 300, b"b/" * 50 + b"c", b"c\xff/" * 900]
)
def test_names_that_are_none(tmp_path: Path, outside: Path, name: bytes) -> None:
    entry = raw_entry(b"././@LongLink", b"L", name + b"\0") + raw_entry(b"short", FILE)
    if name == b"d" * 101:
        assert (unpack(tmp_path, tar(entry)) / name.decode()).exists()
        return
    with pytest.raises(UnsafeLayer) as caught:
        unpack(tmp_path, tar(entry))
    assert len(str(caught.value)) < 400


def test_attributes_that_steer_the_kernel_are_dropped(tmp_path: Path, outside: Path) -> None:
    """overlayfs obeys trusted.overlay.*: a redirect would show any directory of the lower layers anywhere."""
    xattrs = {
        "trusted.overlay.redirect": b"/secret",
        "trusted.overlay.opaque": b"y",
        "trusted.anything": b"x",
        "user.overlay.redirect": b"/secret",
        "security.selinux": b"label",
        "user.kept": b"value",
    }
    layer = unpack(
        tmp_path, tar(raw_entry(b"file", FILE, b"x", xattrs=xattrs), raw_entry(b"dir", DIRECTORY, xattrs=xattrs))
    )
    for name in ("file", "dir"):
        assert os.listxattr(layer / name) == ["user.kept"]


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (gzip.compress(bytes(7 << 20)), "bomb"),
        (
            gzip.compress(tar(raw_entry(b"x", FILE, os.urandom(6 << 20)), raw_entry(b"y", FILE, bytes(3 << 20))), 1),
            "more than",
        ),
        (tar(*(raw_entry(b"%d" % number) for number in range(51))), "more than 50 entries"),
        (tar(raw_entry(b"x", FILE, xattrs={"user.big": b"x" * 70_000})), "attribute"),
    ],
    ids=["ratio", "size", "entries", "attribute"],
)
def test_bombs(tmp_path: Path, outside: Path, data: bytes, says: str) -> None:
    with pytest.raises(TooLarge, match=says):
        unpack(tmp_path, data)


@pytest.mark.parametrize("kind", [b"D", b"M", b"?", b"\xff"])
def test_types_that_no_layer_has(tmp_path: Path, outside: Path, kind: bytes) -> None:
    with pytest.raises(MalformedImage, match="type"):
        unpack(tmp_path, tar(raw_entry(b"x", kind)))


@pytest.mark.parametrize("kind", [FILE, SYMLINK, LINK, CHAR])
def test_the_root_cannot_be_replaced(tmp_path: Path, outside: Path, kind: bytes) -> None:
    with pytest.raises(UnsafeLayer, match="root"):
        unpack(tmp_path, tar(raw_entry(b"./", kind, link=b"x")))


async def test_a_refused_layer_leaves_nothing(store: ImageStore, registry: Registry, tmp_path: Path) -> None:
    """Through a whole pull: two good layers around the bad one, which is the one that is told of."""
    bad = tar(regular("a", b"a"), raw_entry(b"../../../../../../tmp/escaped"))
    pushed = push_image(registry, "hostile:1", [[regular("one", b"1")], bad, [regular("three", b"3")]])
    with pytest.raises(ImageError, match="climbs out"):
        await store.pull(pushed.ref)
    assert store.list() == []
    assert list((tmp_path / "root/snapshots/unpacking").iterdir()) == []
    assert list((tmp_path / "root/trash").iterdir()) == []
    await store.gc()
    assert (store.usage().bytes, store.usage().inodes) == (0, 0)
