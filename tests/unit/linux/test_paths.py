"""Paths inside a root: whatever the links say, nothing outside is reached or made."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.linux import paths


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    directory = tmp_path / "outside"
    directory.mkdir()
    yield directory
    assert not list(directory.iterdir())


@pytest.fixture
def tree(tmp_path: Path, outside: Path) -> Path:
    root = tmp_path / "root"
    (root / "real/deep").mkdir(parents=True)
    (root / "file").touch()
    for name, target in (
        ("absolute", "/real"),
        ("out", str(outside)),
        ("up", f"../../../../../../../../../..{outside}"),
        ("loop", "loop"),
        ("dangling", "not/there/yet"),
        ("chain", "dangling"),
        ("real/back", "../dangling2"),
        ("dangling2", "/made"),
    ):
        (root / name).symlink_to(target)
    return root


@pytest.fixture
def root(tree: Path) -> Iterator[int]:
    fd = os.open(tree, os.O_PATH | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def where(fd: int, tree: Path) -> str:
    """The path that an fd has, relative to the tree."""
    path = os.readlink(f"/proc/self/fd/{fd}")
    os.close(fd)
    assert path.startswith(str(tree))
    return path[len(str(tree)) :] or "/"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/real/deep", "/real/deep"),
        ("/absolute/deep", "/real/deep"),
        ("/../../real/deep", "/real/deep"),
        ("/new/a/b", "/new/a/b"),
        ("/dangling", "/not/there/yet"),
        ("/dangling/more", "/not/there/yet/more"),
        ("/chain/x", "/not/there/yet/x"),
        ("/real/back/x", "/made/x"),
        ("/", "/"),
    ],
)
def test_directories(root: int, tree: Path, path: str, expected: str) -> None:
    assert where(paths.make_directory(root, path), tree) == expected


@pytest.mark.parametrize("path", ["/out/inside", "/up/inside", "/out", "/absolute/../out/x"])
def test_links_that_lead_out_lead_inside(root: int, tree: Path, outside: Path, path: str) -> None:
    place = where(paths.make_directory(root, path), tree)
    assert str(outside)[1:] in place


@pytest.mark.parametrize(
    ("path", "expected"),
    [("/file", "/file"), ("/real/new", "/real/new"), ("/dangling", "/not/there/yet"), ("/new/dir/f", "/new/dir/f")],
)
def test_files(root: int, tree: Path, path: str, expected: str) -> None:
    assert where(paths.make_file(root, path), tree) == expected
    assert (tree / expected[1:]).is_file()


def test_files_behind_links_that_lead_out(root: int, tree: Path, outside: Path) -> None:
    (tree / "resolv.conf").symlink_to(outside / "resolv.conf")
    assert str(outside)[1:] in where(paths.make_file(root, "/resolv.conf"), tree)


@pytest.mark.parametrize("path", ["/loop", "/loop/x", "/file/x", "/missing/../x", "/" + "a/" * 300])
def test_impossible_directories(root: int, path: str) -> None:
    with pytest.raises(OSError):
        paths.make_directory(root, path)


@pytest.mark.parametrize("path", ["/loop", "/real", "/", "/real/..", "/file/x"])
def test_impossible_files(root: int, path: str) -> None:
    with pytest.raises(OSError):
        paths.make_file(root, path)


def test_no_links_means_none(root: int) -> None:
    for path in ("/absolute", "/absolute/deep", "/dangling"):
        with pytest.raises(OSError):
            paths.open_inside(root, path, follow=False)


def test_magic_links_are_no_way_out() -> None:
    root = os.open("/", os.O_PATH | os.O_DIRECTORY)
    try:
        with pytest.raises(OSError):
            paths.open_inside(root, f"/proc/self/fd/{root}")
    finally:
        os.close(root)


def test_a_procfs_is_checked(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="not a procfs"):
        paths.open_procfs(str(tmp_path))
    proc = paths.open_procfs()
    assert paths.read_proc(proc, "sys/kernel/ostype") == "Linux\n"
    with pytest.raises(OSError):
        paths.read_proc(proc, "self/status")  # "self" is a link
    os.close(proc)
