"""Text to documents: YAML as Kubernetes reads it, and every kind of text that is none."""

from __future__ import annotations

from itertools import pairwise

import pytest

from nodeagent.manifests.documents import MAX_BYTES, documents
from nodeagent.manifests.text import ManifestError


def values(text: str) -> list[dict[str, object]]:
    return [document.value for document in documents(text.encode())]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0644", 0o644),
        ("0o17", 15),
        ("0x1f", 31),
        ("-3", -3),
        ("1_000", 1000),
        ("08", "08"),
        ("1.5", 1.5),
        ("22:22", "22:22"),
        ("2020-01-01", "2020-01-01"),
        ("yes", True),
        ("off", False),
        ("y", "y"),
        ("~", None),
        ("", None),
        (".inf", ".inf"),
        ("100m", "100m"),
        ("!!str 5", "5"),
        ("'5'", "5"),
    ],
)
def test_scalars(text: str, value: object) -> None:
    assert values(f"key: {text}") == [{"key": value}]


def test_aliases_and_merges() -> None:
    assert values("a: &x {k: 1, l: 1}\nb: {<<: *x, k: 2}\nc: [*x]") == [
        {"a": {"k": 1, "l": 1}, "b": {"k": 2, "l": 1}, "c": [{"k": 1, "l": 1}]}
    ]


def test_many_documents_and_lists() -> None:
    text = "kind: List\nitems:\n- kind: A\n- kind: B\n---\n# nothing\n---\nkind: C\n"
    assert [value["kind"] for value in values(text)] == ["A", "B", "C"]


def test_json_is_read_with_tabs_and_unicode() -> None:
    assert values('{\n\t"kind": "Pod", "x": "\\u00e4"}') == [{"kind": "Pod", "x": "ä"}]


def test_fields_know_their_lines() -> None:
    (document,) = documents(b"kind: Pod\nspec:\n  containers:\n  - name: a\n    image: b\n")
    assert document.line(("spec", "containers", 0, "image")) == 5
    assert document.line(("spec", "containers", 0, "command", 1)) == 4
    listed = documents(b"kind: List\nitems:\n- kind: A\n- kind: B\n  spec: 1\n")
    assert listed[1].line(("spec",)) == 5


def bomb() -> str:
    """Ten times the line before it, six times: a million values from 200 bytes."""
    lines = ["a: &a [1]"]
    lines += [f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]" for before, name in pairwise("abcdefg")]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("", 0, "the file is empty"),
        ("# only this\n", 0, "the file is empty"),
        ("- a\n", 1, "a document must be an object"),
        ("a: 1\nb: [1\n", 3, "not YAML"),
        ("a: 1\n\tb: 2\n", 2, "not YAML"),
        ("a: 1\na: 2\n", 2, 'the key "a" stands twice'),
        ('{"a": 1, "a": 2}', 0, 'the key "a" stands twice'),
        ('{"a": 1,\n "b": ', 2, "not JSON"),
        ('{"a": NaN}', 0, "NaN is not a JSON value"),
        ("a: !!python/object/apply:os.system [id]", 1, "is not allowed"),
        ("a: &x\n  b: *x\n", 1, "expand to too much"),
        ("? [a]\n: b", 1, "a key must be a word"),
        ("a: \0", 1, "not YAML"),
        (bomb(), 1, "expand to too much"),
        ("[" * 100_000, 1, "nested deeper"),
        ('{"a":' * 100_000, 0, "nested deeper"),
        ('{"a":' * 100 + "1" + "}" * 100, 0, "nested deeper"),
        ("a:\n" + "- 1\n" * 200_000, 99_998, "more than 100000 values"),
        ("kind: List\nitems: 3\n", 2, "items: must be a list"),
        ("kind: List\nitems:\n- 3\n", 3, "items[0]: must be an object"),
        ("kind: A\n---\n" * 2000, 0, "more than 1000 documents"),
        ("a: " + "x" * MAX_BYTES, 0, "larger than"),
    ],
)
def test_what_is_no_manifest_says_where_and_why(text: str, line: int, reason: str) -> None:
    with pytest.raises(ManifestError) as caught:
        documents(text.encode())
    assert reason in caught.value.reason
    assert caught.value.line == line


def test_bytes_that_are_no_text() -> None:
    with pytest.raises(ManifestError, match="not UTF-8 at byte 5"):
        documents(b"a: 1\n\xff")
