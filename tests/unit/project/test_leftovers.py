"""The proof that nothing is left behind must itself be able to fail."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.support import leftovers


def test_a_file_in_a_state_place_is_found() -> None:
    before = leftovers.snapshot()
    stray = Path(f"/tmp/na-stray-{os.getpid()}")
    stray.write_text("")
    try:
        assert f"file: {stray}" in leftovers.left_behind(before, patience_s=0)
    finally:
        stray.unlink()


def test_a_process_of_this_run_is_found() -> None:
    before = leftovers.snapshot()
    with subprocess.Popen(["sleep", "30"]) as child:
        try:
            found = leftovers.left_behind(before, patience_s=0)
        finally:
            child.kill()
    assert any(line.startswith(f"process: {child.pid} ") for line in found)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it adds a link")
def test_a_link_is_found() -> None:
    before = leftovers.snapshot()
    name = f"stray{os.getpid() % 100000}"
    subprocess.run(["ip", "link", "add", name, "type", "bridge"], check=True, timeout=10)
    try:
        assert f"link: {name}" in leftovers.left_behind(before, patience_s=0)
    finally:
        subprocess.run(["ip", "link", "del", name], check=True, timeout=10)
