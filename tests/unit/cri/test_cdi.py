"""Container Device Interface: names, specification files, precedence, and edits of an OCI document."""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path
from typing import Any

import pytest

from cri.server.cdi.edits import apply_edits
from cri.server.cdi.names import requested_names
from cri.server.cdi.registry import Registry
from cri.server.cdi.specs import read_specification
from cri.server.errors import InvalidRequest, NotFound

DOCUMENT: dict[str, Any] = {
    "process": {"user": {"uid": 7, "gid": 8, "additionalGids": [8]}, "env": ["A=1", "PATH=/bin"]},
    "mounts": [{"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": []}],
    "linux": {"devices": [], "resources": {"devices": []}},
}


def document(**fields: Any) -> dict[str, Any]:
    return {"cdiVersion": "1.1.0", "kind": "vendor.example/thing", "devices": [device()], **fields}


def device(name: str = "one", **edits: Any) -> dict[str, Any]:
    return {"name": name, "containerEdits": edits or {"env": [f"DEVICE={name}"]}}


def written(directory: Path, name: str, content: dict[str, Any]) -> Path:
    directory.mkdir(exist_ok=True)
    path = directory / name
    path.write_text(json.dumps(content))
    return path


def edited(*edits: dict[str, Any]) -> dict[str, Any]:
    result = copy.deepcopy(DOCUMENT)
    apply_edits(result, edits)
    return result


def test_names_come_from_the_field_and_from_annotations() -> None:
    annotations = {"cdi.k8s.io/b": "v.example/x=2,v.example/x=1", "other": "v.example/x=3"}
    assert requested_names(["v.example/x=1"], annotations) == ["v.example/x=1", "v.example/x=2"]


@pytest.mark.parametrize(
    "name", ["", "x", "v/x", "v/x=", "=y", "1v/x=y", "v/x=../y", "v/x=y\n", "v/x=y-", "v/x/z=y", "v/" + "x" * 64 + "=y"]
)
def test_malformed_names(name: str) -> None:
    with pytest.raises(InvalidRequest, match=r"is not of the form vendor\.example/class=name"):
        requested_names([name], {})
    with pytest.raises(InvalidRequest):
        requested_names([], {"cdi.k8s.io/x": name})


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"cdiVersion": "2.0.0"}, "none of 0.3.0"),
        ({"cdiVersion": 1}, "cdiVersion is missing or malformed"),
        ({"kind": "thing"}, "not of the form"),
        ({"devices": []}, "0 devices"),
        ({"devices": [device(), device()]}, "there twice"),
        ({"devices": [device("../x")]}, "malformed"),
        ({"surprise": 1}, "unknown field 'surprise'"),
        ({"devices": [device(surprise=1)]}, "unknown field 'surprise'"),
        ({"devices": [device(env=["NOVALUE"])]}, "env 'NOVALUE'"),
        ({"devices": [device(deviceNodes=[{"path": "dev/x"}])]}, "path is missing or malformed"),
        ({"devices": [device(deviceNodes=[{"path": "/dev/x", "permissions": "rx"}])]}, "permissions 'rx'"),
        ({"devices": [device(hooks=[{"hookName": "never", "path": "/x"}])]}, "hookName 'never'"),
        ({"devices": [device(hooks=[{"hookName": "poststop", "path": "x"}])]}, "path is missing"),
        ({"devices": [device(hooks=[{"hookName": "poststop", "path": "/x", "timeout": 0}])]}, "timeout is malformed"),
        ({"cdiVersion": "1.0.0", "devices": [device(netDevices=[])]}, "came with CDI 1.1.0"),
        ({"cdiVersion": "0.6.0", "devices": [device(additionalGids=[1])]}, "came with CDI 0.7.0"),
        ({"cdiVersion": "0.4.0", "devices": [device("1")]}, "came with CDI 0.5.0"),
        ({"cdiVersion": "0.3.0", "devices": [device(mounts=[{"hostPath": "/", "containerPath": "/x", "type": "y"}])]},
         "came with CDI 0.4.0"),
    ],
)  # fmt: skip
def test_files_that_cannot_be_used(tmp_path: Path, fields: dict[str, Any], words: str) -> None:
    path = written(tmp_path, "x.json", document(**fields))
    with pytest.raises(ValueError, match=words):
        read_specification(path)
    with pytest.raises(NotFound, match=rf"could not be used: {path}"):
        Registry([tmp_path]).edits(["vendor.example/thing=one"])


def test_yaml_is_read_and_too_large_files_are_not(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(
        "cdiVersion: 0.5.0\nkind: v.example/t\ndevices:\n- name: y\n  containerEdits:\n    env: [A=2]\n"
    )
    (tmp_path / "big.json").write_bytes(b" " * (5 << 20))
    (tmp_path / "code.yaml").write_text("!!python/object/apply:os.system ['touch /x']\n")
    assert Registry([tmp_path]).edits(["v.example/t=y"])[1] == {"env": ["A=2"]}


def test_the_later_directory_wins_and_a_dispute_is_an_error(tmp_path: Path) -> None:
    static, dynamic = tmp_path / "etc", tmp_path / "run"
    written(static, "a.json", document())
    registry = Registry([static, dynamic])
    name = "vendor.example/thing=one"
    assert registry.edits([name]) == [{}, {"env": ["DEVICE=one"]}]
    path = written(dynamic, "a.json", document(devices=[device(env=["DEVICE=new"])], containerEdits={"env": ["ALL=1"]}))
    assert registry.edits([name]) == [{"env": ["ALL=1"]}, {"env": ["DEVICE=new"]}]
    written(dynamic, "b.json", document())
    with pytest.raises(InvalidRequest, match=r"is described by .*a\.json and .*b\.json"):
        registry.edits([name])
    (dynamic / "b.json").unlink()
    path.unlink()
    assert registry.edits([name])[1] == {"env": ["DEVICE=one"]}


def test_a_files_own_edits_come_once(tmp_path: Path) -> None:
    written(tmp_path, "a.json", document(devices=[device("one"), device("two")], containerEdits={"env": ["ALL=1"]}))
    edits = Registry([tmp_path]).edits(["vendor.example/thing=two", "vendor.example/thing=one"])
    assert edits == [{"env": ["ALL=1"]}, {"env": ["DEVICE=two"]}, {"env": ["DEVICE=one"]}]


def test_a_file_is_read_when_it_changes_and_not_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, "a.json", document())
    registry = Registry([tmp_path])
    names = ["vendor.example/thing=one"]
    registry.edits(names)
    monkeypatch.setattr("cri.server.cdi.registry.read_specification", lambda path: pytest.fail("read again"))
    registry.edits(names)
    monkeypatch.undo()
    path.write_text(json.dumps(document(devices=[device(env=["DEVICE=changed"])])))
    assert registry.edits(names)[1] == {"env": ["DEVICE=changed"]}


def test_a_file_that_has_gone_is_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, "a.json", document())
    registry = Registry([tmp_path])
    names = ["vendor.example/thing=one"]
    registry.edits(names)
    away = path.rename(tmp_path / "a.away")
    with pytest.raises(NotFound):
        registry.edits(names)
    away.rename(path)
    read: list[Path] = []
    monkeypatch.setattr(
        "cri.server.cdi.registry.read_specification", lambda path: read.append(path) or read_specification(path)
    )
    assert len(registry.edits(names)) == 2
    assert read == [path]


def test_unknown_devices_are_named_with_the_directories(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=rf"v\.example/t=x, v\.example/t=y; searched .* in {tmp_path}, /nowhere"):
        Registry([tmp_path, Path("/nowhere")]).edits(["v.example/t=x", "v.example/t=y"])


def test_environment_and_groups() -> None:
    process = edited({"env": ["A=2", "B=3"], "additionalGids": [8, 9, 0]})["process"]
    assert process["env"] == ["PATH=/bin", "A=2", "B=3"]
    assert process["user"]["additionalGids"] == [8, 9]


def test_device_nodes_are_completed_from_the_host() -> None:
    linux = edited({"deviceNodes": [{"path": "/dev/mine", "hostPath": "/dev/null", "permissions": "r"}]})["linux"]
    mode = os.stat("/dev/null").st_mode & 0o7777
    assert linux["devices"] == [
        {"path": "/dev/mine", "type": "c", "major": 1, "minor": 3, "fileMode": mode, "uid": 7, "gid": 8}
    ]
    assert linux["resources"]["devices"] == [{"allow": True, "type": "c", "access": "r", "major": 1, "minor": 3}]


def test_device_nodes_that_are_described_in_full_need_no_host() -> None:
    node = {"path": "/dev/mine", "type": "b", "major": 240, "minor": 0, "fileMode": 0o600, "uid": 0, "gid": 6}
    [device] = edited({"deviceNodes": [node]})["linux"]["devices"]
    assert device == node


@pytest.mark.parametrize(
    ("edits", "words"),
    [
        ({"deviceNodes": [{"path": "/dev/absent-device"}]}, "No such file"),
        ({"deviceNodes": [{"path": "/dev/null", "type": "b"}]}, "not of type b"),
        ({"deviceNodes": [{"path": "/etc/passwd"}]}, "not of type b, c or p"),
        ({"mounts": [{"hostPath": "/absent-path", "containerPath": "/x"}]}, "/absent-path of a CDI device"),
        ({"mounts": [{"hostPath": "/", "containerPath": "/../"}]}, "containerPath '/'"),
        ({"netDevices": [{"hostInterfaceName": "a", "name": "b"}]}, "netDevices"),
        ({"intelRdt": {"closID": "x"}}, "intelRdt"),
    ],
)
def test_edits_that_cannot_be_made(edits: dict[str, Any], words: str) -> None:
    with pytest.raises((InvalidRequest, NotFound), match=words):
        edited(edits)


def test_mounts_replace_and_stand_in_order() -> None:
    mounts = edited(
        {
            "mounts": [
                {"hostPath": "/usr", "containerPath": "/dev/usr", "options": ["ro", "nosuid"]},
                {"hostPath": "tmpfs", "containerPath": "/dev", "type": "tmpfs", "options": ["size=1m"]},
            ]
        }
    )["mounts"]
    assert [(mount["destination"], mount["type"]) for mount in mounts] == [("/dev", "tmpfs"), ("/dev/usr", "bind")]
    assert mounts[1]["options"] == ["rbind", "ro", "nosuid"]


def test_hooks() -> None:
    hook = {"hookName": "createContainer", "path": "/bin/true", "args": ["true"], "timeout": 3}
    assert edited({"hooks": [hook]})["hooks"] == {
        "createContainer": [{"path": "/bin/true", "args": ["true"], "timeout": 3}]
    }
