"""A runtime whose own root is a chroot."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

LOOKS = """
import os, sys
from runtime.linux.namespaces import in_chroot
os.chroot(sys.argv[1])
os.chdir("/")
print(in_chroot(), os.path.exists(sys.argv[2]))
"""


@pytest.mark.parametrize("root", ["root", "/"])
def test_it_is_noticed(tmp_path: Path, root: str) -> None:
    """An exec enters a mount namespace at its root, whatever directory a chroot had made of it."""
    (tmp_path / "root" / "proc").mkdir(parents=True)
    script = 'mount --bind "$1" "$1" && mount --rbind /proc "$1/proc" && shift && exec "$@"'
    python = [sys.executable, "-c", LOOKS, str(tmp_path / root), str(tmp_path)]
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-ec", script, "sh", str(tmp_path / "root")]
    done = subprocess.run([*command, *python], capture_output=True, text=True, timeout=30, check=False)
    assert (done.stdout.split(), done.stderr) == ([str(root != "/"), "True"], "")
