"""Where words stand in the code, the same in every file, so that it reads as if one hand had written it."""

from __future__ import annotations

import ast
import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PACKAGES = ("runtime", "images", "cni", "csi", "cri", "nodeagent")


def modules() -> Iterator[Path]:
    for package in PACKAGES:
        yield from (path for path in sorted((ROOT / package).rglob("*.py")) if not path.name.endswith("_pb2.py"))


def undescribed(tree: ast.Module) -> Iterator[str]:
    if ast.get_docstring(tree) is None:
        yield "line 1: the module has no docstring"
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_") and ast.get_docstring(node) is None:
            yield f"line {node.lineno}: class {node.name} has no docstring"


def strings_below(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        for first, second in itertools.pairwise(body) if isinstance(body, list) else ():
            if isinstance(first, ast.Assign | ast.AnnAssign) and is_string(second):
                yield f"line {second.lineno}: what a name is stands above it, in a #: comment"


def is_string(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


@pytest.mark.parametrize("path", [pytest.param(path, id=path.relative_to(ROOT).as_posix()) for path in modules()])
def test_words_stand_where_they_are_looked_for(path: Path) -> None:
    tree = ast.parse(path.read_text())
    found = [*undescribed(tree), *strings_below(tree)]
    assert not found, "\n".join([path.relative_to(ROOT).as_posix(), *found])
