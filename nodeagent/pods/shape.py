"""Checks a document's shape against a table: types, unknown fields, fields that do nothing here, size.

The tables (fields.py) are data; this is the one walk over them. A field stands in a table with what may be in it, or
wrapped in Inert (accepted, has no meaning on a node without an API server), Later (known, not acted upon: a warning)
or Refused (running the pod without it would be wrong: an error).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from nodeagent.pods import quantity
from nodeagent.pods.problems import Findings, Path

LONGEST_STRING = 256 << 10
LONGEST_LIST = 1000


@dataclass(frozen=True, slots=True)
class Leaf:
    """A scalar. `wrong` says what is wrong with a value, or gives None."""

    name: str
    wrong: Callable[[Any], str | None]


@dataclass(frozen=True, slots=True)
class Choice:
    """One of these strings."""

    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ListOf:
    """A list, at most LONGEST_LIST long."""

    item: Shape


@dataclass(frozen=True, slots=True)
class MapOf:
    """An object with free keys."""

    value: Shape


@dataclass(frozen=True, slots=True)
class Inert:
    """Accepted without a word and without effect."""


@dataclass(frozen=True, slots=True)
class Later:
    """Accepted with a warning: the pod runs without it."""

    reason: str = "is not acted upon by this agent"


@dataclass(frozen=True, slots=True)
class Refused:
    """An error: a pod that asks for it would not be what it says."""

    reason: str = "is not supported by this agent"


Shape = Leaf | Choice | ListOf | MapOf | Inert | Later | Refused | Mapping[str, Any]


def _text(value: Any) -> str | None:
    if not isinstance(value, str):
        return "must be a string (quote it)"
    if len(value) > LONGEST_STRING:
        return f"is longer than {LONGEST_STRING} characters"
    return "holds a NUL character" if "\0" in value else None


def _integer(value: Any) -> str | None:
    right = isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63
    return None if right else "must be a whole number"


def _quantity(value: Any) -> str | None:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return 'must be a quantity such as "500m" or "64Mi"'
    try:
        quantity.parse(value)
    except ValueError as error:
        return str(error)
    return None


TEXT = Leaf("string", _text)
INTEGER = Leaf("integer", _integer)
BOOLEAN = Leaf("boolean", lambda value: None if isinstance(value, bool) else "must be true or false")
QUANTITY = Leaf("quantity", _quantity)


def check(value: Any, shape: Shape, path: Path, findings: Findings) -> None:
    """Add what is wrong with `value` to `findings`. A null is an absent field, as in the API."""
    match shape:
        case Inert():
            return
        case Later(reason):
            findings.warn(path, reason)
        case Refused(reason):
            findings.error(path, f"Forbidden: {reason}")
        case Leaf(_, wrong):
            if why := wrong(value):
                findings.invalid(path, value, why)
        case Choice(values):
            if value not in values:
                findings.unsupported(path, value, values)
        case ListOf(item):
            _check_list(value, item, path, findings)
        case MapOf(inner):
            _check_map(value, inner, path, findings)
        case _:
            _check_object(value, shape, path, findings)


def _check_list(value: Any, item: Shape, path: Path, findings: Findings) -> None:
    if not isinstance(value, list):
        return findings.invalid(path, value, "must be a list")
    if len(value) > LONGEST_LIST:
        return findings.error(path, f"Too many: {len(value)}: must have at most {LONGEST_LIST} items")
    for index, entry in enumerate(value):
        if entry is None:
            findings.required((*path, index))
        else:
            check(entry, item, (*path, index), findings)


def _check_map(value: Any, inner: Shape, path: Path, findings: Findings) -> None:
    if not isinstance(value, dict):
        return findings.invalid(path, value, "must be an object")
    for key, entry in value.items():
        if not isinstance(key, str):
            findings.invalid(path, key, "keys must be strings (quote them)")
        elif entry is not None:
            check(entry, inner, (*path, key), findings)


def _check_object(value: Any, fields: Mapping[str, Any], path: Path, findings: Findings) -> None:
    if not isinstance(value, dict):
        return findings.invalid(path, value, "must be an object")
    for key, entry in value.items():
        if not isinstance(key, str):
            findings.invalid(path, key, "field names must be strings")
        elif key not in fields:
            findings.warn((*path, key), f"unknown field{_nearest(key, fields)}")
        elif entry is not None:
            check(entry, fields[key], (*path, key), findings)


def _nearest(key: str, fields: Mapping[str, Any]) -> str:
    """The commonest slips: wrong case and a missing or spare plural."""
    folded = key.lower().rstrip("s")
    near = [name for name in fields if name.lower().rstrip("s") == folded]
    return f' (did you mean "{near[0]}"?)' if near else ""
