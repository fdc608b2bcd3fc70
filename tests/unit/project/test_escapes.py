"""The table of published escapes: every row has tests that are there, or a reason why it has none."""

from __future__ import annotations

import ast
import functools
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
TABLE: dict[str, dict[str, Any]] = tomllib.loads((ROOT / "tests/escapes/table.toml").read_text())
ROWS = {"R": 20, "C": 25, "O": 8, "N": 4, "K": 13, "S": 1, "P": 5, "B": 1, "D": 1, "V": 1}


@functools.cache
def functions(path: str) -> frozenset[str]:
    tree = ast.parse((ROOT / path).read_text())
    return frozenset(node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def test_no_row_is_missing() -> None:
    wanted = {f"{letter}{number}" for letter, count in ROWS.items() for number in range(1, count + 1)}
    assert wanted <= TABLE.keys()


@pytest.mark.parametrize("row", TABLE)
def test_a_row_has_tests_or_a_reason(row: str) -> None:
    entry = TABLE[row]
    assert entry.keys() <= {"cves", "tests", "reason"}
    assert bool(entry.get("tests")) != bool(entry.get("reason"))
    for test in entry.get("tests", ()):
        path, _, function = test.partition("::")
        assert function in functions(path), test


def test_every_escape_in_the_folder_is_in_the_table() -> None:
    named = {test for entry in TABLE.values() for test in entry.get("tests", ())}
    for path in sorted((ROOT / "tests/escapes").glob("test_*.py")):
        name = path.relative_to(ROOT).as_posix()
        tests = {f"{name}::{function}" for function in functions(name) if function.startswith("test_")}
        assert tests <= named
