"""YAML as Kubernetes reads it: narrower than YAML 1.1, bounded, and with the line of every field.

No dates, no base-60 numbers, no custom tags; a key that stands twice is an error. A manifest is untrusted text until
it is parsed, so depth and the number of nodes are bounded over libyaml's events before anything recursive runs, and
the number of nodes after all aliases are expanded while the values are built.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from nodeagent.pods.problems import Path

MAX_DEPTH = 64
MAX_NODES = 100_000


class ManifestError(Exception):
    """The text is no manifest. `line` counts from 1; 0 when it is not known."""

    def __init__(self, reason: str, line: int = 0) -> None:
        super().__init__(reason)
        self.reason = reason
        self.line = line


@dataclass(frozen=True, slots=True)
class Document:
    """A document as JSON would have it, and where its fields stand in the text."""

    value: dict[str, Any]
    lines: dict[Path, int] = field(default_factory=dict, repr=False)

    def line(self, path: Path) -> int:
        """The line of the field, or of the nearest thing around it; 0 when not known (JSON)."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 0)


class _Loader(yaml.CSafeLoader):
    """Scalars as Kubernetes' YAML library reads them."""


_KEPT = ("bool", "null", "merge", "float")
_Loader.yaml_implicit_resolvers = {
    first: [entry for entry in entries if entry[0].rpartition(":")[2] in _KEPT]
    for first, entries in yaml.CSafeLoader.yaml_implicit_resolvers.items()
}
_COLLECTIONS = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")
_INTEGER = re.compile(r"[-+]?(0b[01_]+|0o?[0-7_]+|0x[0-9a-fA-F_]+|0|[1-9][0-9_]*)$")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9][0-9_]*(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", _INTEGER, list("-+0123456789"))


def from_yaml(text: str) -> list[Document]:
    """Every document of the text that is not empty. Raises ManifestError."""
    try:
        _check_bounds(text)
        loader = _Loader(text)
        try:
            return list(_compose(loader))
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise ManifestError(f"not YAML: {error.problem or error.context}", mark.line + 1 if mark else 0) from None
    except yaml.reader.ReaderError as error:
        raise ManifestError(f"not YAML: {error.reason}", text[: error.position].count("\n") + 1) from None


def _compose(loader: _Loader) -> Iterator[Document]:
    while loader.check_node():
        node = loader.get_node()
        if isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:null":
            continue
        if not isinstance(node, yaml.MappingNode):
            raise ManifestError("a document must be an object with kind and metadata", _line(node))
        builder = _Builder()
        yield Document(builder.build(node, ()), builder.lines)


def _check_bounds(text: str) -> None:
    """Over the events, which libyaml yields without recursion, so that what follows may recurse."""
    depth = 0
    for count, event in enumerate(yaml.parse(text, Loader=yaml.CSafeLoader)):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MAX_DEPTH:
            raise ManifestError(f"nested deeper than {MAX_DEPTH} levels", _line(event))
        if count > MAX_NODES:
            raise ManifestError(f"more than {MAX_NODES} values", _line(event))


def _line(node: yaml.Node | yaml.Event | None) -> int:
    mark = node.start_mark if node else None
    return int(mark.line) + 1 if mark else 0


class _Builder:
    """Nodes to plain values. Aliases are expanded, so each visit counts, and a cycle ends in MAX_DEPTH."""

    def __init__(self) -> None:
        self.lines: dict[Path, int] = {}
        self._visits = 0

    def build(self, node: yaml.Node, path: Path) -> Any:
        self._visits += 1
        if self._visits > MAX_NODES or len(path) > MAX_DEPTH:
            raise ManifestError("aliases (*name) expand to too much", _line(node))
        self.lines.setdefault(path, _line(node))
        if not isinstance(node, yaml.ScalarNode) and node.tag not in _COLLECTIONS:
            raise ManifestError(f"the tag {node.tag} is not allowed", _line(node))
        if isinstance(node, yaml.SequenceNode):
            return [self.build(item, (*path, index)) for index, item in enumerate(node.value)]
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        assert isinstance(node, yaml.ScalarNode)
        return _scalar(node)

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        value: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                for source in value_node.value if isinstance(value_node, yaml.SequenceNode) else [value_node]:
                    merged = self._merge_source(source, path) | merged
                continue
            key = _key(key_node)
            if key in value:
                raise ManifestError(f'the key "{key}" stands twice', _line(key_node))
            self.lines[(*path, key)] = _line(key_node)
            value[key] = self.build(value_node, (*path, key))
        return merged | value

    def _merge_source(self, node: yaml.Node, path: Path) -> dict[str, Any]:
        if not isinstance(node, yaml.MappingNode):
            raise ManifestError("<< must name an object", _line(node))
        source = self.build(node, path)
        assert isinstance(source, dict)
        return source


def _key(node: yaml.Node) -> str:
    if not isinstance(node, yaml.ScalarNode):
        raise ManifestError("a key must be a word", _line(node))
    return str(node.value)


def _scalar(node: yaml.ScalarNode) -> str | int | float | bool | None:
    text = node.value
    match node.tag.rpartition(":")[2]:
        case "str":
            return str(text)
        case "null":
            return None
        case "bool":
            return text.lower() in ("true", "yes", "on")
        case "int":
            return _whole_number(node)
        case "float" if _FLOAT.fullmatch(text):
            return float(text.replace("_", ""))
        case "float":
            # .inf, .nan and base 60, none of which JSON has: text, as Kubernetes reads it.
            return str(text)
        case _:
            raise ManifestError(f"the tag {node.tag} is not allowed", _line(node))


def _whole_number(node: yaml.ScalarNode) -> int:
    """0644 and 0o644 are octal, as in YAML 1.1 and 1.2; a file mode in a manifest depends on it."""
    text = node.value.replace("_", "")
    digits = text.lstrip("+-")
    try:
        octal = len(digits) > 1 and digits[0] == "0" and digits[1].isdigit()
        number = int(digits, 8) if octal else int(digits, 0)
    except ValueError:
        raise ManifestError(f'"{node.value[:40]}" is not a number', _line(node)) from None
    return -number if text.startswith("-") else number
