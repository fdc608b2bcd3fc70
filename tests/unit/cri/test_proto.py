"""Our api.proto against the published one, and the generated files against ours."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from cri.proto.services import methods
from tests.support.published_protos import CRI, NRI, Published, compiled, differences, published

ROOT = Path(__file__).parents[3]


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "cri/proto/generate.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["generate"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("ours", "theirs"), [("api", CRI), ("nri", NRI)])
def test_descriptors_say_what_the_published_module_says(ours: str, theirs: Published) -> None:
    assert differences(compiled(ROOT / f"cri/proto/{ours}.proto"), published(theirs)) == []


def test_generated_files_are_fresh() -> None:
    assert generator().stale() == []


def test_every_call_is_bound() -> None:
    table = methods()
    assert len(table) == 43
    assert table["Version"].path == "/runtime.v1.RuntimeService/Version"
    assert table["PullImage"].path == "/runtime.v1.ImageService/PullImage"
    assert {name for name, method in table.items() if method.streams} == {
        "GetContainerEvents",
        "StreamContainerStats",
        "StreamContainers",
        "StreamImages",
        "StreamPodSandboxMetrics",
        "StreamPodSandboxStats",
        "StreamPodSandboxes",
    }
