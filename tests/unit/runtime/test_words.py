"""The names that the zygote makes first are ones that the runtime looks up."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import CodeType

import runtime
from runtime.words import WORDS


def looked_up(code: CodeType) -> Iterator[str]:
    """The names and strings in this code and in the code inside of it."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from looked_up(constant)
        elif isinstance(constant, str):
            yield constant


def test_all_of_them_are_looked_up() -> None:
    names: set[str] = set()
    for path in Path(runtime.__file__).parent.rglob("*.py"):
        if path.name != "words.py":
            names.update(looked_up(compile(path.read_text(), path, "exec")))
    assert set(WORDS) - names == set()


def test_they_stand_in_order_and_once() -> None:
    assert sorted(set(WORDS)) == list(WORDS)
