"""A file is one subject: one that has grown beyond this has two, or a reason."""

from __future__ import annotations

import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[3]
LINES = 300
LINES_OF_TESTS = 450
REASONS = {
    "runtime/shim/operations.py": "one method for each operation of the shim's protocol, and nothing else",
}


def test_no_file_is_longer_than_its_subject() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    paths = listed.stdout.split() or [str(path.relative_to(ROOT)) for path in ROOT.glob("[a-z]*/**/*.py")]
    for path in paths:
        if path.endswith("_pb2.py") or path in REASONS or not (ROOT / path).exists():
            continue
        lines = (ROOT / path).read_text().count("\n")
        assert lines <= (LINES_OF_TESTS if path.startswith("tests/") else LINES), path
