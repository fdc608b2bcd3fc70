"""Specs, errors and records survive their way between processes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from runtime import errors, state
from runtime.errors import ContainerError, InvalidSpec, NotFound, StartError, from_doc, to_doc
from runtime.linux.cgroups import MissingController
from runtime.linux.overlay import OverlayRootfs
from runtime.spec import ContainerSpec, ExecSpec, SandboxSpec


def through_json(doc: object) -> dict[str, object]:
    result = json.loads(json.dumps(doc))
    assert isinstance(result, dict)
    return result


@pytest.mark.parametrize(
    "spec",
    [
        SandboxSpec("s", "/run/s"),
        SandboxSpec("s", "/run/s", sysctls={"net.a": "1"}, pid="pod", userns={"uid": [[0, 1, 2]], "gid": [[0, 1, 2]]}),
        ContainerSpec("c", "s", {"process": {"args": ["a"]}}, "/root"),
        ContainerSpec("c", "s", {}, OverlayRootfs(("/a", "/b"), "/u", "/w", ("volatile",)), tty=True),
        ExecSpec("e", ["a"], env=["A=1"], user={"uid": 1}),
    ],
)
def test_specs(spec: SandboxSpec | ContainerSpec | ExecSpec) -> None:
    assert type(spec).from_json(through_json(spec.to_json())) == spec


def test_a_spec_of_a_newer_version_has_keys_that_are_ignored() -> None:
    assert SandboxSpec.from_json({"id": "s", "state_dir": "/s", "invented_later": 1}) == SandboxSpec("s", "/s")
    container = {"id": "c", "sandbox_id": "s", "oci": {}, "rootfs": {"lower": ["/l"], "new": 1}, "invented_later": 1}
    assert ContainerSpec.from_json(container).rootfs == OverlayRootfs(("/l",))


def test_a_spec_without_what_it_needs() -> None:
    with pytest.raises(TypeError, match="state_dir"):
        SandboxSpec.from_json({"id": "s"})


@pytest.mark.parametrize(
    "error",
    [
        StartError("exec: no"),
        NotFound("container x"),
        MissingController("memory", "memory.limit"),
        OSError(2, "No such file or directory", "/x"),
        PermissionError(13, "Permission denied"),
        ValueError("bad"),
    ],
)
def test_errors_arrive_as_themselves(error: Exception) -> None:
    error.add_note("step one")
    error.add_note("step two")
    arrived = from_doc(through_json(to_doc(error)))
    assert type(arrived) is type(error)
    assert str(arrived) == str(error)
    assert errors.notes_of(arrived) == ["step one", "step two"]
    assert errors.explain(arrived) == f"{error}; step one; step two"


def test_an_unknown_error_keeps_its_name() -> None:
    arrived = from_doc(to_doc(KeyError("oci")))
    assert type(arrived) is ContainerError
    assert str(arrived) == "KeyError: 'oci'"


def test_records_of_containers(tmp_path: Path) -> None:
    (tmp_path / "containers").mkdir()
    state.write_container(str(tmp_path), "a", {"container": "a", "cgroup": "/a"})
    state.write_container(str(tmp_path), "b", {"container": "b", "cgroup": "/b", "exit_code": 0})
    (tmp_path / "containers/.a.json.123").write_text("half")
    found = state.read_containers(str(tmp_path))
    assert [(doc["container"], state.has_ended(doc)) for doc in found] == [("a", False), ("b", True)]
    state.forget_container(str(tmp_path), "a")
    state.forget_container(str(tmp_path), "a")
    assert [doc["container"] for doc in state.read_containers(str(tmp_path))] == ["b"]


def test_whatever_is_recorded_of_a_container_can_be_read_again(tmp_path: Path) -> None:
    (tmp_path / "containers").mkdir()
    large = {"container": "a", "cgroup": "/a", "process": {"args": ["\x01" * (1 << 20)]}}  # six bytes each, as JSON
    assert state.new_container(str(tmp_path), "a", large)
    assert state.read_containers(str(tmp_path)) == [large]
    with pytest.raises(InvalidSpec, match=r"container b takes [0-9]+ bytes"):
        state.new_container(str(tmp_path), "b", {"container": "b", "process": {"args": ["x" * state.FILE_LIMIT]}})
    assert sorted(path.name for path in (tmp_path / "containers").iterdir()) == ["a.json"]


def test_a_sandbox_that_never_came_to_be(tmp_path: Path) -> None:
    assert state.read_shim(str(tmp_path)) == {}
    assert state.read_containers(str(tmp_path)) == []
