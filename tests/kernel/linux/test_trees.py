"""Trees that others filled are removed whole, and nothing outside them is ever touched."""

from __future__ import annotations

import errno
import os
import resource
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from runtime.linux import mountapi, mounts, trees
from runtime.linux.mounttable import is_mount_point, mounts_at, mounts_beneath, unmount_beneath
from runtime.linux.trees import belongs_to_group, give_to_group, remove_tree


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    unmount_beneath(tmp_path)


@pytest.fixture
def canary(place: Path) -> Path:
    """A directory outside the tree, whose file has to survive."""
    directory = place / "canary"
    directory.mkdir()
    (directory / "data").write_text("precious")
    return directory


@pytest.fixture
def tree(place: Path) -> Path:
    directory = place / "tree"
    (directory / "sub" / "deeper").mkdir(parents=True)
    (directory / "sub" / "file").write_text("x")
    return directory


def bind(source: Path, target: Path) -> None:
    fd = mounts.bind(str(source))
    try:
        mountapi.move_mount_at(fd, str(target))
    finally:
        os.close(fd)


def test_links_are_removed_and_not_followed(tree: Path, canary: Path) -> None:
    (tree / "link").symlink_to(canary)
    (tree / "sub" / "up").symlink_to("../../canary/data")
    os.link(canary / "data", tree / "hardlink")
    os.mkfifo(tree / "fifo")
    remove_tree(tree)
    assert not tree.exists()
    assert (canary / "data").read_text() == "precious"


def test_a_missing_tree_is_no_error(place: Path) -> None:
    remove_tree(place / "nothing")


def test_two_at_the_same_tree(place: Path) -> None:
    """A container's bundle is removed by whoever failed to start it, and by whoever ends its lost pod."""
    for _ in range(20):
        for name in range(60):
            (place / "tree" / f"{name}" / "deeper").mkdir(parents=True)
        with ThreadPoolExecutor(4) as others:
            removals = [others.submit(remove_tree, place / "tree") for _ in range(4)]
        assert [removal.exception() for removal in removals] == [None] * 4
        assert not (place / "tree").exists()


def test_a_link_in_place_of_the_tree_is_refused(place: Path, canary: Path) -> None:
    (place / "tree").symlink_to(canary)
    with pytest.raises(OSError, match=r"directory|symbolic"):
        remove_tree(place / "tree")
    assert (canary / "data").exists()


@pytest.mark.parametrize("where", ["", "sub", "sub/deeper"])
def test_a_tree_with_a_mount_is_left_alone(tree: Path, canary: Path, where: str) -> None:
    bind(canary, tree / where)
    with pytest.raises(OSError, match="mounted there") as caught:
        remove_tree(tree)
    assert caught.value.errno == errno.EBUSY
    assert (canary / "data").read_text() == "precious"
    assert (tree / where / "data").exists()
    unmount_beneath(tree)
    assert (tree / "sub" / "file").exists()
    remove_tree(tree)
    assert not tree.exists()


def test_a_mount_of_the_same_filesystem_that_turns_up_on_the_way_stops_the_removal(
    tree: Path, canary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The mount table was read before the mount was made: only the walk itself can see it.
    bind(canary, tree / "sub" / "deeper")
    monkeypatch.setattr(trees, "mounts_beneath", lambda path: [])
    with pytest.raises(OSError) as caught:
        remove_tree(tree)
    assert caught.value.errno == errno.EXDEV
    assert (canary / "data").read_text() == "precious"


def test_a_tree_deeper_than_the_fd_table_and_the_stack(tree: Path) -> None:
    directory = os.open(tree, os.O_RDONLY)
    for _ in range(2000):  # beyond sys.getrecursionlimit(), and beyond PATH_MAX as a path
        os.mkdir("d", dir_fd=directory)
        deeper = os.open("d", os.O_RDONLY, dir_fd=directory)
        os.close(directory)
        directory = deeper
    os.close(directory)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        remove_tree(tree)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert not tree.exists()


def test_more_entries_than_one_batch(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trees, "BATCH", 7)
    for number in range(100):
        (tree / f"f{number}").touch()
    remove_tree(tree)
    assert not tree.exists()


def test_the_mount_table_knows_stacked_and_oddly_named_mounts(place: Path, canary: Path) -> None:
    odd = place / "tab\tspace backslash\\ line\u2028end\nnewline"
    odd.mkdir()
    assert not is_mount_point(odd)
    bind(canary, odd)
    bind(canary, odd)
    assert [mount.point for mount in mounts_at(odd)] == [str(odd)] * 2
    assert mounts_at(odd)[-1].root.endswith("/canary")
    assert is_mount_point(odd)
    assert len(mounts_beneath(place)) >= 2  # where / is shared, the second bind also appears below its source
    unmount_beneath(place)
    assert not mounts_beneath(place)


def test_is_mount_point_of_links_and_missing_names(place: Path, canary: Path) -> None:
    (place / "link").symlink_to(canary)
    assert not is_mount_point(place / "link")
    with pytest.raises(FileNotFoundError):
        is_mount_point(place / "nothing")


def test_a_group_gets_a_tree_but_nothing_that_links_point_to(tree: Path, canary: Path) -> None:
    (tree / "link").symlink_to(canary / "data")
    before = (canary / "data").stat()
    assert not belongs_to_group(tree, 4242)
    give_to_group(tree, 4242)
    assert belongs_to_group(tree, 4242)
    status = (tree / "sub").stat()
    assert status.st_gid == 4242
    assert status.st_mode & stat.S_ISGID
    assert stat.S_IMODE((tree / "sub" / "file").stat().st_mode) & 0o660 == 0o660
    assert (tree / "link").lstat().st_gid == 4242
    after = (canary / "data").stat()
    assert (after.st_gid, after.st_mode) == (before.st_gid, before.st_mode)


def test_a_group_does_not_get_what_is_mounted_inside(tree: Path, canary: Path) -> None:
    bind(canary, tree / "sub" / "deeper")
    with pytest.raises(OSError) as caught:
        give_to_group(tree, 4242)
    assert caught.value.errno == errno.EXDEV
    assert (canary / "data").stat().st_gid == 0
