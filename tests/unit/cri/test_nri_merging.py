"""The answers of several NRI plugins as one."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict, ParseDict

from cri.proto import nri_pb2 as nri
from cri.server.nri.config import ValidatorConfig
from cri.server.nri.errors import NriFault
from cri.server.nri.merging import Adjustments, Updates
from cri.server.nri.owners import Owners
from cri.server.nri.validator import REQUIRED, Validator

CONTAINER = {
    "id": "c",
    "annotations": {"old": "1"},
    "env": ["A=old", "B=old"],
    "args": ["old"],
    "mounts": [{"destination": "/m", "source": "/old"}],
    "linux": {"devices": [{"path": "/dev/d", "type": "c"}]},
}


def merged(*answers: dict[str, Any]) -> tuple[Adjustments, dict[str, Any], dict[str, Any]]:
    """Of plugins 1-p, 2-p, ...: the result, the adjustment, and the container as one more plugin would see it."""
    request = nri.CreateContainerRequest(container=ParseDict(CONTAINER, nri.Container()))
    result = Adjustments(request)
    for number, answer in enumerate(answers, 1):
        result.add(ParseDict(answer, nri.CreateContainerResponse()), f"{number}-p")
    return result, MessageToDict(result.adjust), MessageToDict(request.container)


def adjust(**fields: Any) -> dict[str, Any]:
    return {"adjust": fields}


CONFLICTS: list[tuple[str, dict[str, Any]]] = [
    ("Annotations a", adjust(annotations={"a": "1"})),
    ("Mounts /x", adjust(mounts=[{"destination": "/x"}])),
    ("Env E", adjust(env=[{"key": "E", "value": "1"}])),
    ("Args", adjust(args=["x"])),
    ("Rlimits RLIMIT_CORE", adjust(rlimits=[{"type": "RLIMIT_CORE", "hard": 1, "soft": 1}])),
    ("CdiDevices v/c=d", adjust(CDIDevices=[{"name": "v/c=d"}])),
    ("Devices /dev/x", adjust(linux={"devices": [{"path": "/dev/x"}]})),
    ("MemLimit", adjust(linux={"resources": {"memory": {"limit": {"value": 1}}}})),
    ("CPUSetCPUs", adjust(linux={"resources": {"cpu": {"cpus": "0"}}})),
    ("PidsLimit", adjust(linux={"resources": {"pids": {"limit": 1}}})),
    ("HugepageLimits 2MB", adjust(linux={"resources": {"hugepageLimits": [{"pageSize": "2MB", "limit": 1}]}})),
    ("CgroupsUnified memory.high", adjust(linux={"resources": {"unified": {"memory.high": "1"}}})),
    ("BlockioClass", adjust(linux={"resources": {"blockioClass": {"value": "x"}}})),
    ("CgroupsPath", adjust(linux={"cgroupsPath": "/x"})),
    ("OomScoreAdj", adjust(linux={"oomScoreAdj": {"value": 1}})),
    ("IoPriority", adjust(linux={"ioPriority": {"priority": 1}})),
    ("SeccompPolicy", adjust(linux={"seccompPolicy": {"defaultAction": "SCMP_ACT_ALLOW"}})),
    ("Namespace uts", adjust(linux={"namespaces": [{"type": "uts"}]})),
    ("Sysctl net.x", adjust(linux={"sysctl": {"net.x": "1"}})),
    ("LinuxNetDevices eth1", adjust(linux={"netDevices": {"eth1": {"name": "x"}}})),
    ("LinuxSched", adjust(linux={"scheduler": {"policy": "SCHED_BATCH"}})),
    ("RdtClosID", adjust(linux={"rdt": {"closId": {"value": "x"}}})),
    ("MemoryPolicy", adjust(linux={"memoryPolicy": {"mode": "MPOL_BIND"}})),
]


@pytest.mark.parametrize(("what", "answer"), CONFLICTS, ids=[what for what, _ in CONFLICTS])
def test_two_plugins_cannot_set_the_same_thing(what: str, answer: dict[str, Any]) -> None:
    merged(answer)
    with pytest.raises(NriFault, match=f"plugins 1-p and 2-p both set {what} of"):
        merged(answer, answer)


def test_a_plugin_may_take_away_first_what_another_has_set() -> None:
    result, adjustment, seen = merged(
        adjust(
            annotations={"a": "1"},
            env=[{"key": "E", "value": "1"}],
            mounts=[{"destination": "/x", "source": "/1"}],
            args=["first"],
            linux={"devices": [{"path": "/dev/x", "major": 1}], "sysctl": {"net.x": "1"}},
        ),
        adjust(
            annotations={"-a": "", "a": "2"},
            env=[{"key": "-E"}, {"key": "E", "value": "2"}],
            mounts=[{"destination": "-/x"}, {"destination": "/x", "source": "/2"}],
            args=["", "second"],
            linux={"devices": [{"path": "-/dev/x"}, {"path": "/dev/x", "major": 2}], "sysctl": {"-net.x": ""}},
        ),
    )
    assert seen["annotations"] == {"old": "1", "a": "2"} and adjustment["annotations"] == {"-a": "", "a": "2"}
    assert "E=2" in seen["env"] and "E=1" not in seen["env"]
    assert [mount["source"] for mount in seen["mounts"]] == ["/old", "/2"]
    assert seen["args"] == adjustment["args"] == ["second"]
    assert [device.get("major") for device in seen["linux"]["devices"]] == [None, "2"]
    assert adjustment["linux"]["sysctl"] == {"-net.x": ""}
    assert result.owners.of("c", nri.Env, "E") == "2-p" and result.owners.of("c", nri.Sysctl, "net.x") == ""


def test_the_next_plugin_sees_a_changed_entry_once() -> None:
    _, _, seen = merged(
        adjust(
            env=[{"key": "A", "value": "new"}],
            mounts=[{"destination": "/m", "source": "/new"}],
            linux={"devices": [{"path": "/dev/d", "type": "b"}]},
        )
    )
    assert seen["env"] == ["B=old", "A=new"]
    assert [mount["source"] for mount in seen["mounts"]] == ["/new"]
    assert [device["type"] for device in seen["linux"]["devices"]] == ["b"]


def test_hooks_of_all_plugins_are_kept_and_owned_together() -> None:
    hook = adjust(hooks={"prestart": [{"path": "/bin/x"}]})
    result, adjustment, _ = merged(hook, hook)
    assert len(adjustment["hooks"]["prestart"]) == 2 and result.owners.of("c", nri.OciHooks) == "1-p,2-p"


def limits(id: str, shares: int, **more: Any) -> nri.ContainerUpdate:
    return ParseDict(
        {"containerId": id, "linux": {"resources": {"cpu": {"shares": {"value": shares}}}}, **more},
        nri.ContainerUpdate(),
    )


def test_updates_of_one_container_are_one_update() -> None:
    updates = Updates(Owners(), forbidden="new")
    updates.add([limits("a", 1), limits("b", 2)], "1-p")
    memory = ParseDict(
        {"containerId": "a", "linux": {"resources": {"memory": {"limit": {"value": 5}}}}}, nri.ContainerUpdate()
    )
    updates.add([memory], "2-p")
    assert (
        updates.of["a"].linux.resources.cpu.shares.value == 1
        and updates.of["a"].linux.resources.memory.limit.value == 5
    )
    with pytest.raises(NriFault, match="1-p and 3-p both set CPUShares"):
        updates.add([limits("a", 7)], "3-p")
    updates.add([limits("a", 7, ignoreFailure=True)], "3-p")
    assert updates.of["a"].linux.resources.cpu.shares.value == 1
    with pytest.raises(NriFault, match="container that is being created"):
        updates.add([limits("new", 1)], "3-p")


def validated(annotations: dict[str, str], answer: dict[str, Any], **settings: Any) -> None:
    result, _, _ = merged(answer)
    request = nri.ValidateContainerAdjustmentRequest(
        pod=nri.PodSandbox(annotations=annotations),
        container=nri.Container(id="c", name="main"),
        plugins=[nri.PluginInstance(name="p", index="01")],
    )
    Validator(ValidatorConfig(enable=True, **settings)).check(request, result.owners)


@pytest.mark.parametrize(
    ("setting", "answer", "why"),
    [
        ("reject_oci_hook_adjustment", adjust(hooks={"poststop": [{"path": "/x"}]}), "OCI hook injection"),
        ("reject_namespace_adjustment", adjust(linux={"namespaces": [{"type": "uts"}]}), r"1-p \(uts\)"),
        ("reject_sysctl_adjustment", adjust(linux={"sysctl": {"net.x": "1"}}), "sysctl adjustment"),
        ("reject_runtime_default_seccomp_adjustment", adjust(linux={"seccompPolicy": {}}), "runtime default seccomp"),
    ],
)
def test_the_default_validator_rejects_what_it_is_told_to(setting: str, answer: dict[str, Any], why: str) -> None:
    validated({}, answer)
    with pytest.raises(NriFault, match=f"default validator rejects container main: .*{why}"):
        validated({}, answer, **{setting: True})
    validated({}, {}, **{setting: True})


def test_required_plugins_must_be_there_unless_that_is_tolerated() -> None:
    tolerate = {"tolerate_missing_plugins_annotation": "tolerate"}
    validated({}, {}, required_plugins=("p", "01-p"))
    with pytest.raises(NriFault, match="required plugins 02-p, q are not present"):
        validated({}, {}, required_plugins=("02-p", "q"))
    validated({"tolerate/container.main": "true"}, {}, required_plugins=("q",), **tolerate)
    for text in ('["p", q]', "- p\n- 'q'\n", "[q]"):
        with pytest.raises(NriFault, match="required plugins q are"):
            validated({REQUIRED: text}, {})
    validated({REQUIRED: "[p]", f"{REQUIRED}/container.other": "[q]"}, {})
    with pytest.raises(NriFault, match="must be a list"):
        validated({REQUIRED: "{a: b}"}, {})
    with pytest.raises(NriFault, match="neither true nor false"):
        validated({"tolerate": "perhaps"}, {}, **tolerate)
