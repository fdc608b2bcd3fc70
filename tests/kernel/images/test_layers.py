"""What a layer looks like once it is unpacked, alone and under overlayfs, compared with what other tools make of it."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import shutil
import stat
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from images import ImageStore
from images.blobs import BlobReader, Growth
from images.build import LayerFile, directory, hardlink, layer_tar, regular, symlink
from images.digest import Digest
from images.limits import Limits
from images.unpack.layer import LayerUnpack
from runtime.linux.overlay import OverlayRootfs
from tests.support.images import push_image
from tests.support.registry import Registry
from tests.support.tars import raw_entry, tar

View = dict[str, tuple[object, ...]]


def unpack(tmp_path: Path, data: bytes, name: str, below: list[Path] | None = None) -> Path:
    (tmp_path / "blob").write_bytes(data)
    layer = tmp_path / name
    layer.mkdir()
    with contextlib.closing(LayerUnpack(layer, Digest.of(data), Limits())) as unpacking:
        with BlobReader(Growth.complete(tmp_path / "blob", len(data))) as reader:
            unpacking.extract(reader)
        unpacking.settle(below or [])
    return layer


def view(root: Path, *, times: bool = True) -> View:
    """Everything that can be seen of a tree, by path; files with several names show which ones."""
    found: View = {}
    names: dict[int, list[str]] = {}
    for path in sorted([root, *root.rglob("*")]):
        status, name = path.lstat(), str(path.relative_to(root))
        content: object = b""
        if stat.S_ISREG(status.st_mode):
            content = path.read_bytes()
            names.setdefault(status.st_ino, []).append(name)
        elif path.is_symlink():
            content = os.readlink(path)
        xattrs = {
            key: os.getxattr(path, key, follow_symlinks=False) for key in os.listxattr(path, follow_symlinks=False)
        }
        xattrs.pop("trusted.overlay.opaque", None)
        mtime = status.st_mtime_ns // 1000 if times else 0
        found[name] = (
            status.st_mode,
            status.st_uid,
            status.st_gid,
            status.st_rdev,
            mtime,
            content,
            tuple(xattrs.items()),
        )
    for group in names.values():
        for name in group:
            found[name] += (tuple(group),)
    return found


@contextlib.contextmanager
def mounted(rootfs: OverlayRootfs, at: Path) -> Iterator[Path]:
    at.mkdir(exist_ok=True)
    options = f"lowerdir={':'.join(rootfs.lower)},upperdir={rootfs.upper},workdir={rootfs.work}"
    subprocess.run(["mount", "-t", "overlay", "-o", options, "overlay", str(at)], check=True, timeout=20)
    try:
        yield at
    finally:
        subprocess.run(["umount", str(at)], check=True, timeout=20)


def test_a_tree_as_gnu_tar_unpacks_it(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "dir/sub").mkdir(parents=True)
    for number, mode in enumerate((0o644, 0o755, 0o4755, 0o2755, 0o6711, 0o1666, 0o000)):
        file = source / f"dir/file{number}"
        file.write_bytes(os.urandom(number * 10_000))
        os.chown(file, 1000 + number, 70_000 + number)
        file.chmod(mode)
        os.utime(file, ns=(10**18, 1_234_567_890_123_456_000 + number * 1000))
    os.link(source / "dir/file1", source / "dir/sub/hard")
    os.symlink("../file1", source / "dir/sub/link")
    os.symlink("/dangling/" + "x" * 120, source / "dir/long link")
    os.lchown(source / "dir/long link", 5, 6)
    os.mkfifo(source / "fifo", 0o622)
    os.mknod(source / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    os.chmod(source / "null", 0o666)
    os.setxattr(source / "dir/file0", "user.name", b"a\0b")
    os.setxattr(source / "dir", "user.dir", b"d")
    subprocess.run(["setcap", "cap_net_raw+ep", str(source / "dir/file1")], check=True)
    (source / "ünï \n\t'\"").write_text("odd name")
    (source / "/".join(["long" * 20] * 4)).mkdir(parents=True)
    (source / "dir/sub").chmod(0o2775)
    (source / "dir").chmod(0o1777)
    os.utime(source / "dir", ns=(0, 10**18))
    data = subprocess.run(
        ["tar", "--format=pax", "--xattrs", "--xattrs-include=*", "-cf", "-", "-C", str(source), "."],
        capture_output=True, check=True,
    ).stdout  # fmt: skip
    assert view(unpack(tmp_path, data, "layer")) == view(source)


@pytest.mark.parametrize(
    "options", [["--format=gnu"], *(["--format=pax", f"--sparse-version={v}"] for v in (0.0, 0.1, 1.0))]
)
def test_sparse_files_stay_sparse(tmp_path: Path, options: list[str]) -> None:
    source = tmp_path / "source"
    source.mkdir()
    with (source / "sparse").open("wb") as file:
        for number in range(30):
            file.seek(number << 20)
            file.write(os.urandom(5000))
        file.truncate(100 << 20)
    data = subprocess.run(
        ["tar", "--sparse", *options, "-cf", "-", "-C", str(source), "sparse"], capture_output=True, check=True
    ).stdout
    layer = unpack(tmp_path, data, "layer")
    assert (layer / "sparse").read_bytes() == (source / "sparse").read_bytes()
    assert (layer / "sparse").stat().st_blocks * 512 < 1 << 20


def test_a_later_entry_of_a_name_wins(tmp_path: Path) -> None:
    data = tar(
        regular("a", b"old", 0o600),
        regular("a", b"new", 0o640),
        directory("b", 0o700),
        regular("b/inside", b"gone"),
        regular("b", b"file now"),
        regular("c", b"file"),
        directory("c", 0o711),
        directory("d", 0o700),
        regular("d/kept", b"kept"),
        directory("d", 0o755, uid=5),
        symlink("e", "d"),
        directory("e"),
        symlink("f", "one"),
        symlink("f", "two"),
        raw_entry(b"g", b"3", device=(1, 3)),
        raw_entry(b"g", b"6"),
        regular("h", b"1"),
        hardlink("a", "h"),
    )
    layer = unpack(tmp_path, data, "layer")
    assert (layer / "a").stat().st_ino == (layer / "h").stat().st_ino
    assert (layer / "b").read_text() == "file now"
    assert stat.S_IMODE((layer / "c").stat().st_mode) == 0o711
    assert (layer / "d/kept").exists()
    assert ((layer / "d").stat().st_uid, stat.S_IMODE((layer / "d").stat().st_mode)) == (5, 0o755)
    assert (layer / "e").is_dir()
    assert not (layer / "e").is_symlink()
    assert os.readlink(layer / "f") == "two"
    assert stat.S_ISFIFO((layer / "g").lstat().st_mode)


def test_files_below_a_link_to_a_directory_go_there(tmp_path: Path) -> None:
    """Merged /usr: packages still ship files under /lib."""
    data = tar(directory("usr/lib"), symlink("lib", "usr/lib"), regular("lib/x.so", b"x"), symlink("bin", "/usr/bin"),
               directory("usr/bin"), hardlink("bin/y", "lib/x.so"))  # fmt: skip
    layer = unpack(tmp_path, data, "layer")
    assert (layer / "usr/lib/x.so").read_text() == "x"
    assert (layer / "usr/bin/y").stat().st_ino == (layer / "usr/lib/x.so").stat().st_ino
    assert (layer / "lib").is_symlink()


def test_directories_passed_through_look_as_they_do_below(tmp_path: Path) -> None:
    """Without that, a layer with only tmp/x in it would take the sticky bit from /tmp."""
    lower = tar(
        raw_entry(b"./", b"5", mode=0o711, uid=3),
        raw_entry(b"tmp/", b"5", mode=0o1777, mtime=1000, xattrs={"user.a": b"b"}),
        raw_entry(b"var/", b"5", mode=0o750, uid=33, gid=44, mtime=2000),
        symlink("link", "var"),
        directory("gone"),
    )
    first = unpack(tmp_path, lower, "first")
    second = unpack(tmp_path, tar(raw_entry(b".wh.gone"), regular("other", b"x")), "second", [first])
    upper = tar(regular("tmp/x", b"x"), regular("var/new/x", b"x"), regular("link/x", b"x"), regular("gone/x", b"x"))
    layer = unpack(tmp_path, upper, "layer", [second, first])
    assert view(layer)["tmp"][:5] == (stat.S_IFDIR | 0o1777, 0, 0, 0, 1000 * 10**6)
    assert os.getxattr(layer / "tmp", "user.a") == b"b"
    assert view(layer)["var"][:3] == (stat.S_IFDIR | 0o750, 33, 44)
    for name in ("var/new", "link", "gone"):
        assert view(layer)[name][:3] == (stat.S_IFDIR | 0o755, 0, 0)
    assert view(layer)["."][:3] == (stat.S_IFDIR | 0o711, 3, 0)


def test_hard_links_to_files_of_lower_layers_are_copied_up(tmp_path: Path) -> None:
    first = unpack(tmp_path, tar(raw_entry(b"bin/tool", b"0", b"tool" * 5000, mode=0o4755, uid=9, mtime=77)), "first")
    second = unpack(tmp_path, tar(regular("other", b"x")), "second", [first])
    layer = unpack(
        tmp_path, tar(hardlink("bin/a", "bin/tool"), hardlink("bin/b", "bin/tool")), "layer", [second, first]
    )
    assert view(layer)["bin/a"] == view(layer)["bin/tool"]
    assert view(layer)["bin/a"][:6] == view(first)["bin/tool"][:6]
    assert view(layer)["bin/a"][-1] == ("bin/a", "bin/b", "bin/tool")


def test_whiteouts_only_where_there_is_something_to_hide(tmp_path: Path) -> None:
    first = unpack(tmp_path, tar(regular("a/file", b"1"), regular("a/other", b"2"), regular("b/file", b"3")), "first")
    data = tar(
        raw_entry(b"a/.wh.file"),
        raw_entry(b"a/.wh.nothing"),
        raw_entry(b"new/.wh.nothing"),
        raw_entry(b"b/.wh..wh..opq"),
        regular("b/mine", b"4"),
        raw_entry(b".wh..wh.plnk", b"5"),
        raw_entry(b".wh..wh.plnk/12.34"),
        raw_entry(b"a/.wh..wh.aufs"),
    )
    layer = unpack(tmp_path, data, "layer", [first])
    assert sorted(str(path.relative_to(layer)) for path in layer.rglob("*")) == ["a", "a/file", "b", "b/mine"]
    gone = (layer / "a/file").lstat()
    assert (stat.S_ISCHR(gone.st_mode), gone.st_rdev) == (True, 0)
    assert os.getxattr(layer / "b", "trusted.overlay.opaque") == b"y"


def test_a_whiteout_of_what_the_same_layer_makes_hides_only_what_is_below(tmp_path: Path) -> None:
    first = unpack(tmp_path, tar(regular("dir/old", b"1"), regular("file", b"1")), "first")
    for number, order in enumerate((1, -1)):
        parts: list[bytes | LayerFile] = [
            raw_entry(b".wh.dir"),
            regular("dir/new", b"2"),
            raw_entry(b".wh.file"),
            regular("file", b"2"),
        ]
        layer = unpack(tmp_path, tar(*parts[::order]), f"layer{number}", [first])
        assert (layer / "file").read_text() == "2"
        assert os.getxattr(layer / "dir", "trusted.overlay.opaque") == b"y"


@pytest.mark.parametrize(
    "now",
    [raw_entry(b"opt/.wh.dir"), regular("opt/dir", b"2"), symlink("opt/dir", "other")],
    ids=["gone", "file", "link"],
)
@pytest.mark.parametrize("order", [1, -1])
def test_whiteouts_in_a_directory_that_is_none_any_more(tmp_path: Path, now: bytes | LayerFile, order: int) -> None:
    """As umoci 0.4.7 writes them for a directory that has become a file."""
    below = tar(regular("opt/dir/old", b"1"), regular("opt/dir/sub/old", b"1"), regular("opt/other/old", b"1"))
    first = unpack(tmp_path, below, "first")
    parts = [now, raw_entry(b"opt/dir/.wh.old"), raw_entry(b"opt/dir/sub/.wh.old"), directory("opt/other")]
    layer = unpack(tmp_path, tar(*parts[::order]), "layer", [first])
    assert sorted(os.listdir(layer / "opt")) == ["dir", "other"]
    assert not stat.S_ISDIR((layer / "opt/dir").lstat().st_mode)
    assert (os.listdir(layer / "opt/other"), os.listxattr(layer / "opt/other")) == ([], [])


def random_layer(chance: random.Random, number: int) -> bytes:
    """Files, links, whiteouts and opaque directories over few enough names that layers meet."""
    parts: list[bytes | LayerFile] = []
    places = ["", "a/", "b/", "a/c/", "a/c/d/", "b/e/"]
    for _ in range(25):
        path = chance.choice(places) + chance.choice("fghijk")
        kind = chance.randrange(10)
        if kind < 4:
            parts.append(regular(path, b"%d" % number * chance.randrange(2000), chance.choice([0o644, 0o755, 0o4711])))
        elif kind < 6 and number:
            place, _, name = path.rpartition("/")
            parts.append(raw_entry(f"{place}/.wh.{name}".lstrip("/").encode()))
        elif kind == 6 and number:
            parts.append(raw_entry((chance.choice(places[1:]) + ".wh..wh..opq").encode()))
        elif kind == 7:
            parts.append(symlink(path, "somewhere"))
        elif kind == 8:
            parts.append(directory(path, chance.choice([0o700, 0o755, 0o1777])))
        else:
            parts += [regular(path, b"linked"), hardlink(f"{path}-hard", path)]
    named = [directory(place.rstrip("/"), 0o755) for place in places[1:]]
    return tar(*named, *parts)


def unpacked_by_umoci(ref: str, tmp_path: Path) -> Path:
    layout, bundle = f"{tmp_path}/layout:it", tmp_path / "bundle"
    for command in (
        ["skopeo", "copy", "--src-tls-verify=false", f"docker://{ref}", f"oci:{layout}"],
        ["umoci", "unpack", "--image", layout, str(bundle)],
    ):
        subprocess.run(command, check=True, capture_output=True, timeout=60)
    return bundle


@pytest.mark.parametrize("seed", range(12))
async def test_random_layers_stack_as_umoci_unpacks_them(
    store: ImageStore, registry: Registry, tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)
    pushed = push_image(registry, f"random:{seed}", [random_layer(chance, number) for number in range(4)])
    image = await store.pull(pushed.ref)
    bundle = unpacked_by_umoci(pushed.ref, tmp_path)
    with mounted(await store.containers.prepare("c1", image.id), tmp_path / "mounted") as root:
        ours, theirs = view(root, times=False), view(bundle / "rootfs", times=False)
    for both in (ours, theirs):
        both.pop(".")  # umoci's own directory
    assert ours == theirs


async def test_an_opaque_root_hides_everything_below(store: ImageStore, registry: Registry, tmp_path: Path) -> None:
    """overlayfs never makes root directories opaque, so it takes a whiteout for each name."""
    layers: list[Sequence[LayerFile] | bytes] = [
        [regular("one/a", b"1"), regular("two/b", b"2"), regular("three", b"3")],
        tar(raw_entry(b".wh.three"), regular("four", b"4")),
        tar(raw_entry(b".wh..wh..opq"), regular("two/mine", b"5"), regular("five", b"5")),
    ]
    image = await store.pull(push_image(registry, "opaque:1", layers).ref)
    with mounted(await store.containers.prepare("c1", image.id), tmp_path / "mounted") as root:
        assert sorted(str(path.relative_to(root)) for path in root.rglob("*")) == ["five", "two", "two/mine"]


async def test_a_container_writes_to_its_own_layer_only(store: ImageStore, registry: Registry, tmp_path: Path) -> None:
    layer = tar(raw_entry(b"./", b"5", mode=0o751, uid=8), regular("data/file", b"image"))
    image = await store.pull(push_image(registry, "cow:1", [layer]).ref)
    rootfs = await store.containers.prepare("c1", image.id)
    with mounted(rootfs, tmp_path / "mounted") as root:
        assert (root.stat().st_uid, stat.S_IMODE(root.stat().st_mode)) == (8, 0o751)
        (root / "data/file").write_text("container")
        (root / "data/new").write_bytes(bytes(100_000))
        usage = await store.containers.usage("c1")
        assert usage.inodes == 4
        assert 100_000 < usage.bytes < 200_000
    assert Path(rootfs.lower[0], "data/file").read_text() == "image"
    other = await store.containers.prepare("c2", image.id)
    with mounted(other, tmp_path / "mounted") as root:
        assert (root / "data/file").read_text() == "image"
    await store.containers.release("c1")
    assert not Path(rootfs.upper).exists()


def test_a_layer_of_many_entries_needs_few_fds(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    data = layer_tar([regular(f"d{number}/e/f", b"x") for number in range(2000)])
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
    try:
        layer = unpack(tmp_path, data, "layer")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert sum(1 for _ in layer.rglob("f")) == 2000
    shutil.rmtree(layer)
