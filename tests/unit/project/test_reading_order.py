"""A package of several modules says in its docstring what they are and in which order to read them: all of them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PACKAGES = ("runtime", "images", "cni", "csi", "cri", "nodeagent")
SEVERAL = 3
NAME = re.compile(r"([\w*]+)\.py\b")


def packages() -> Iterator[Path]:
    for package in PACKAGES:
        for init in sorted((ROOT / package).rglob("__init__.py")):
            if len(modules(init)) >= SEVERAL:
                yield init


def modules(init: Path) -> set[str]:
    names = {path.stem for path in init.parent.glob("*.py")} - {"__init__"}
    return {name for name in names if not name.endswith("_pb2")}


@pytest.mark.parametrize("init", [pytest.param(init, id=str(init.parent.relative_to(ROOT))) for init in packages()])
def test_the_docstring_of_a_package_names_its_modules(init: Path) -> None:
    named, there = set(NAME.findall(ast.get_docstring(ast.parse(init.read_text())) or "")), modules(init)
    assert not [name for name in sorted(named) if not any(fnmatch(module, name) for module in there)], "is not there"
    assert not [module for module in sorted(there) if not any(fnmatch(module, name) for name in named)], "not named"
