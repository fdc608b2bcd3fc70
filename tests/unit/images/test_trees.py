"""Trees that containers have filled: how large they are, and how they are thrown away."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from images.trash import Trash
from runtime.linux.treesize import measure


def test_size_as_du_counts_it(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "a/b").mkdir(parents=True)
    (tree / "a/file").write_bytes(bytes(100_000))
    os.link(tree / "a/file", tree / "a/b/again")
    (tree / "link").symlink_to("/usr")
    with (tree / "sparse").open("wb") as file:
        file.truncate(1 << 30)
    size, inodes = measure(tree)
    assert inodes == 6
    assert 100_000 < size < 150_000
    with pytest.raises(FileNotFoundError):
        measure(tmp_path / "missing")
    with pytest.raises(NotADirectoryError):
        measure(tree / "link")


def test_a_tree_deeper_than_any_path(tmp_path: Path) -> None:
    """3,000 levels, made from inside as a container would: measured as far as paths go, removed to the last."""
    tree = tmp_path / "tree"
    tree.mkdir()
    fd = os.open(tree, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("dd", dir_fd=fd)
        below = os.open("dd", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    _, inodes = measure(tree)
    assert 1000 < inodes < 3001
    trash = Trash(tmp_path / "trash")
    trash.delete(trash.throw(tree))
    assert os.listdir(tmp_path) == ["trash"]
    assert os.listdir(tmp_path / "trash") == []


def test_trash_of_every_kind(tmp_path: Path) -> None:
    trash = Trash(tmp_path / "trash")
    (tmp_path / "outside").write_text("kept")
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "outside")
    (tmp_path / "tree/sub").mkdir(parents=True)
    (tmp_path / "tree/sub/link").symlink_to("/")
    assert trash.throw(tmp_path / "missing") is None
    trash.delete(None)
    thrown = trash.throw(tmp_path / "file")
    trash.delete(thrown)
    trash.delete(thrown)
    for name in ("link", "tree"):
        trash.throw(tmp_path / name)
    assert sorted(os.listdir(tmp_path)) == ["outside", "trash"]
    Trash(tmp_path / "trash").empty()
    assert os.listdir(tmp_path / "trash") == []
    assert (tmp_path / "outside").read_text() == "kept"
