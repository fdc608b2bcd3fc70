"""README's configuration is crid's: it parses, it shows the defaults, and no key is missing."""

from __future__ import annotations

import dataclasses
import re
import tomllib
from pathlib import Path
from typing import Any

from cri.server.config import CheckpointConfig, Config, NetworkConfig, RuntimeConfig, from_document
from cri.server.nri.config import NriConfig, ValidatorConfig
from cri.server.streaming.config import StreamingConfig

ROOT = Path(__file__).parents[3]
README = (ROOT / "README.md").read_text()
[EXAMPLE] = re.findall(r"^```toml\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
EVERYTHING = re.sub(r"^#", "", EXAMPLE, flags=re.MULTILINE)


def keys(section: type[Any]) -> set[str]:
    return {field.name for field in dataclasses.fields(section)}


def test_the_example_shows_the_defaults() -> None:
    assert from_document(tomllib.loads(EXAMPLE), "README.md") == Config()


def test_every_key_is_in_the_example() -> None:
    document = tomllib.loads(EVERYTHING)
    from_document(document, "README.md")
    in_tables = {"registries": "images", "pinned": "images", "cgroup_parent": "cgroup"}
    assert document.keys() == keys(Config) - in_tables.keys() | set(in_tables.values())
    assert (document["images"].keys(), document["cgroup"].keys()) == ({"registries", "pinned"}, {"parent"})
    assert document["network"].keys() == keys(NetworkConfig)
    assert document["checkpoint"].keys() == keys(CheckpointConfig)
    assert document["streaming"].keys() == keys(StreamingConfig)
    assert document["nri"].keys() == keys(NriConfig)
    assert document["nri"]["default_validator"].keys() == keys(ValidatorConfig)
    assert document["runtimes"]["runc"].keys() == keys(RuntimeConfig) - {"name"}


def test_what_the_text_links_to_is_there() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
