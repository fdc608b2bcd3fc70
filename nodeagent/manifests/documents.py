"""The bytes of a manifest file to documents: YAML or JSON, several in a file, lists taken apart."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

from nodeagent.manifests.text import MAX_DEPTH, Document, ManifestError, from_yaml

MAX_BYTES = 1 << 20
MAX_DOCUMENTS = 1000


def documents(data: bytes) -> list[Document]:
    """Every document of a file, a v1.List taken apart. Raises ManifestError."""
    if len(data) > MAX_BYTES:
        raise ManifestError(f"the file is larger than {MAX_BYTES} bytes")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ManifestError(f"not UTF-8 at byte {error.start}", data[: error.start].count(b"\n") + 1) from None
    roots = _from_json(text) if text.lstrip()[:1] == "{" else from_yaml(text)
    found = [each for root in roots for each in _flatten(root)]
    if not found:
        raise ManifestError("the file is empty")
    if len(found) > MAX_DOCUMENTS:
        raise ManifestError(f"more than {MAX_DOCUMENTS} documents in one file")
    return found


def _flatten(document: Document) -> Iterator[Document]:
    if document.value.get("kind") != "List":
        yield document
        return
    items = document.value.get("items")
    if not isinstance(items, list):
        raise ManifestError("items: must be a list", document.line(("items",)))
    for index, item in enumerate(items):
        if not isinstance(item, dict):
            raise ManifestError(f"items[{index}]: must be an object", document.line(("items", index)))
        lines = {path[2:]: line for path, line in document.lines.items() if path[:2] == ("items", index)}
        yield Document(item, lines)


def _from_json(text: str) -> list[Document]:
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        # A flow mapping in YAML starts alike; JSON's own words are better only where the text ends too early.
        try:
            return from_yaml(text)
        except ManifestError:
            raise ManifestError(f"not JSON: {error.msg}", error.lineno) from None
    except RecursionError:
        raise ManifestError(f"nested deeper than {MAX_DEPTH} levels") from None
    _check_depth(value)
    return [Document(value)]


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [inner for each in level for inner in _inside(each)]
    if level:
        raise ManifestError(f"nested deeper than {MAX_DEPTH} levels")


def _inside(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        [(again, _)] = Counter(key for key, _ in pairs).most_common(1)
        raise ManifestError(f'the key "{again}" stands twice')
    return value


def _no_constant(name: str) -> Any:
    raise ManifestError(f"{name} is not a JSON value")
