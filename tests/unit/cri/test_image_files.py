"""Files of an image through its layers: whiteouts, opaque directories, links, and no way out."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from cri.server.image_files import merged_paths, read_image_file


@pytest.fixture
def layers(tmp_path: Path) -> list[str]:
    top, middle, bottom = (tmp_path / name for name in ("top", "middle", "bottom"))
    for layer in (top, middle, bottom):
        (layer / "etc").mkdir(parents=True)
    (bottom / "etc/passwd").write_text("bottom")
    (bottom / "etc/group").write_text("bottom")
    (middle / "etc/passwd").write_text("middle")
    (bottom / "data").mkdir()
    (bottom / "data/b").write_text("b")
    (middle / "data").mkdir()
    (middle / "data/m").write_text("m")
    (top / "link").symlink_to("/etc/passwd")
    (top / "climb").symlink_to("../../../../etc/passwd")
    (top / "loop").symlink_to("loop")
    (middle / "etc2").symlink_to("etc")
    os.mkfifo(top / "fifo")
    return [str(top), str(middle), str(bottom)]


def test_the_topmost_entry_wins(layers: list[str]) -> None:
    assert read_image_file(layers, "/etc/passwd", 100) == b"middle"
    assert read_image_file(layers, "/etc/group", 100) == b"bottom"
    assert read_image_file(layers, "/etc/shadow", 100) is None
    assert read_image_file(layers, "/etc/passwd/x", 100) is None


def test_links_belong_to_the_merged_tree(layers: list[str]) -> None:
    assert read_image_file(layers, "/link", 100) == b"middle"
    assert read_image_file(layers, "/climb", 100) == b"middle"
    assert read_image_file(layers, "/etc2/group", 100) == b"bottom"
    assert read_image_file(layers, "/data/../etc/group", 100) == b"bottom"
    with pytest.raises(OSError, match="symbolic links"):
        read_image_file(layers, "/loop", 100)


def test_whiteouts_and_opaque_directories_hide(layers: list[str]) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: a whiteout is a character device")
    os.mknod(f"{layers[0]}/etc/group", 0o020000, 0)
    assert read_image_file(layers, "/etc/group", 100) is None
    os.setxattr(f"{layers[1]}/data", "trusted.overlay.opaque", b"y")
    assert read_image_file(layers, "/data/m", 100) == b"m"
    assert read_image_file(layers, "/data/b", 100) is None


def test_only_regular_files_within_the_limit(layers: list[str]) -> None:
    with pytest.raises(OSError, match="not a regular file"):
        read_image_file(layers, "/fifo", 100)
    with pytest.raises(OSError, match="limit of 3"):
        read_image_file(layers, "/etc/passwd", 3)
    with pytest.raises(IsADirectoryError):
        read_image_file(layers, "/etc", 100)


def test_paths_for_image_volumes(layers: list[str]) -> None:
    assert merged_paths(layers, "data") == [f"{layers[1]}/data", f"{layers[2]}/data"]
    assert merged_paths(layers, "") == layers
    assert merged_paths(layers, "link") == [f"{layers[1]}/etc/passwd"]
    with pytest.raises(FileNotFoundError):
        merged_paths(layers, "nothing")


def test_no_descriptor_is_left(layers: list[str]) -> None:
    before = len(os.listdir("/proc/self/fd"))
    read_image_file(layers, "/link", 100)
    merged_paths(layers, "data")
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_hostile_path_takes_no_more_descriptors_than_an_honest_one(
    layers: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (Path(layers[0]) / "deep").symlink_to("/".join(["etc"] + ["../etc"] * 200 + ["passwd"]))
    most, count = 0, len(os.listdir("/proc/self/fd"))
    real = os.open

    def counting(*arguments: Any, **named: Any) -> int:
        nonlocal most
        fd = real(*arguments, **named)
        most = max(most, len(os.listdir("/proc/self/fd")) - count)
        return fd

    monkeypatch.setattr(os, "open", counting)
    assert read_image_file(layers, "/deep", 100) == b"middle"
    assert most <= 2 * len(layers) + 1


def test_a_walk_has_an_end(layers: list[str]) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="more than 1024 directories") as caught:
        read_image_file(layers, "/etc/.." * 2000, 100)
    assert caught.value.errno == errno.ELOOP
    assert len(os.listdir("/proc/self/fd")) == before
