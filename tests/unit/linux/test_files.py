"""Small files: atomic writes and limited reads."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

import pytest

from runtime.linux import files


def test_write_atomic_replaces_content_and_sets_the_mode(tmp_path: Path) -> None:
    target = tmp_path / "state.json"
    files.write_atomic(target, b"one")
    files.write_atomic(target, b"two", mode=0o644)
    assert target.read_bytes() == b"two"
    assert target.stat().st_mode & 0o777 == 0o644
    assert [entry.name for entry in tmp_path.iterdir()] == ["state.json"]


def test_write_atomic_replaces_a_link_instead_of_following_it(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    canary.write_bytes(b"host")
    link = tmp_path / "link"
    link.symlink_to(canary)
    files.write_atomic(link, b"new")
    assert canary.read_bytes() == b"host"
    assert not link.is_symlink()


def test_write_atomic_leaves_nothing_when_it_fails(tmp_path: Path) -> None:
    occupied = tmp_path / "occupied"
    (occupied / "child").mkdir(parents=True)
    with pytest.raises(OSError):
        files.write_atomic(occupied, b"data")
    assert [entry.name for entry in tmp_path.iterdir()] == ["occupied"]


def test_read_limited_accepts_the_limit_and_refuses_one_byte_more(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_bytes(b"x" * 10)
    assert files.read_limited(path, 10) == b"x" * 10
    with pytest.raises(OSError) as caught:
        files.read_limited(path, 9)
    assert caught.value.errno == errno.EFBIG
    assert str(path) in str(caught.value)


def test_read_limited_reads_files_of_unknown_size() -> None:
    assert files.read_limited("/proc/self/status", 1 << 20).startswith(b"Name:")


def test_read_limited_refuses_a_fifo_without_blocking(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with pytest.raises(OSError) as caught:
        files.read_limited(fifo, 10)
    assert caught.value.errno == errno.EINVAL


def test_boot_id_is_the_kernels_uuid() -> None:
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", files.boot_id())
