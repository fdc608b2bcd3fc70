"""A pod's volumes as values, and the field that is wrong when they cannot be had."""

from __future__ import annotations

from typing import Any

import pytest

from nodeagent.volumes.claims import ClaimIndex
from nodeagent.volumes.errors import VolumesError
from nodeagent.volumes.plan import EPHEMERAL, CsiVolume, EmptyDir, Group, HostPath, plan
from tests.support.volume_documents import claim, claimed, inline, pod, volume

NONE = ClaimIndex()


def test_an_empty_dir() -> None:
    small = {"name": "cache", "emptyDir": {"medium": "Memory", "sizeLimit": "64Mi"}}
    security = {"fsGroup": 2000, "fsGroupChangePolicy": "OnRootMismatch"}
    planned = plan(pod(small, {"name": "plain", "emptyDir": {}}, securityContext=security), NONE)
    group = Group(2000, only_root_decides=True)
    assert planned == [EmptyDir("cache", True, 64 << 20, group), EmptyDir("plain", group=group)]


def test_a_host_path() -> None:
    planned = plan(pod({"name": "h", "hostPath": {"path": "/srv", "type": "Directory"}}), NONE)
    assert planned == [HostPath("h", "/srv", "Directory")]


def test_an_inline_volume_knows_its_pod() -> None:
    source = inline("d.example", volumeAttributes={"size": "1", EPHEMERAL: "false"}, readOnly=True, fsType="ext4")
    (planned,) = plan(pod(source), NONE)
    assert isinstance(planned, CsiVolume)
    assert planned.inline
    assert planned.read_only
    assert planned.handle.startswith("csi-")
    assert dict(planned.context) == {
        "size": "1",
        "csi.storage.k8s.io/pod.name": "web",
        "csi.storage.k8s.io/pod.namespace": "default",
        "csi.storage.k8s.io/pod.uid": "uid-1",
        "csi.storage.k8s.io/serviceAccount.name": "",
        EPHEMERAL: "true",
    }


def test_inline_handles_differ_by_pod_and_volume_and_stay() -> None:
    def handle(uid: str, name: str) -> str:
        (planned,) = plan(pod(inline("d.example", name), uid=uid), NONE)
        assert isinstance(planned, CsiVolume)
        return planned.handle

    assert len({handle("u1", "a"), handle("u1", "b"), handle("u2", "a")}) == 3
    assert handle("u1", "a") == handle("u1", "a")


def test_a_claimed_volume() -> None:
    index = ClaimIndex([volume(mountOptions=["noexec"]), claim()])
    (planned,) = plan(pod(claimed()), index)
    assert isinstance(planned, CsiVolume)
    assert (planned.driver, planned.handle, planned.claim) == ("d.example", "pv-1", "default/data")
    assert planned.mount_flags == ("noexec",)
    assert not planned.read_only


@pytest.mark.parametrize(
    ("offer", "source"),
    [
        (volume(), {"readOnly": True}),
        (volume(csi={"driver": "d", "volumeHandle": "v", "readOnly": True}), {}),
        (volume(accessModes=["ReadOnlyMany"]), {}),
    ],
)
def test_read_only_comes_from_any_side(offer: dict[str, Any], source: dict[str, Any]) -> None:
    index = ClaimIndex([offer, claim(accessModes=offer["spec"]["accessModes"])])
    (planned,) = plan(pod(claimed(**source)), index)
    assert isinstance(planned, CsiVolume)
    assert planned.read_only


def test_a_claimed_host_path() -> None:
    index = ClaimIndex([volume(csi=None, hostPath={"path": "/srv/data"}), claim()])
    assert plan(pod(claimed(readOnly=True)), index) == [HostPath("data", "/srv/data", read_only=True)]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ({"configMap": {"name": "x"}}, "spec.volumes[0].configMap: this kind of volume is not supported"),
        ({"nfs": {"server": "x"}}, "spec.volumes[0].nfs"),
        ({}, "spec.volumes[0]: has to have one source, not none"),
        ({"emptyDir": {}, "hostPath": {"path": "/x"}}, "not emptyDir, hostPath"),
        ({"emptyDir": {"medium": "HugePages"}}, "spec.volumes[0].emptyDir.medium"),
        ({"emptyDir": {"sizeLimit": "big"}}, "spec.volumes[0].emptyDir.sizeLimit"),
        ({"hostPath": {"path": "/a/../etc"}}, "spec.volumes[0].hostPath.path"),
        ({"hostPath": {"path": "relative"}}, "spec.volumes[0].hostPath.path"),
        ({"hostPath": {"path": "/x", "type": "Disk"}}, "spec.volumes[0].hostPath.type"),
        ({"csi": {}}, "spec.volumes[0].csi.driver: required"),
        ({"csi": {"driver": "../x"}}, "cannot be the name of a directory"),
        (
            {"csi": {"driver": "d", "volumeAttributes": {"a": True}}},
            "volumeAttributes: keys and values must be strings",
        ),
        ({"csi": {"driver": "d", "nodePublishSecretRef": {"name": "s"}}}, "nodePublishSecretRef: secrets come from"),
        ({"persistentVolumeClaim": {"claimName": "none"}}, "(spec.volumes[0]): claim default/none: there is no such"),
    ],
)
def test_what_cannot_be_had_names_its_field(source: dict[str, Any], words: str) -> None:
    with pytest.raises(VolumesError) as caught:
        plan(pod({"name": "v", **source}), NONE)
    assert words in str(caught.value)
    assert 'volume "v"' in str(caught.value)


@pytest.mark.parametrize("name", ["../../etc", "a/b", "", ".hidden", "a\nb"])
def test_a_name_that_is_a_path_is_refused(name: str) -> None:
    with pytest.raises(VolumesError, match="cannot be the name of a directory"):
        plan(pod({"name": name, "emptyDir": {}}), NONE)


def test_a_persistent_volume_cannot_pose_as_ephemeral() -> None:
    posing = volume(csi={"driver": "d", "volumeHandle": "v", "volumeAttributes": {EPHEMERAL: "true"}})
    with pytest.raises(VolumesError, match="for inline volumes"):
        plan(pod(claimed()), ClaimIndex([posing, claim()]))


def test_all_wrong_volumes_are_named_at_once() -> None:
    with pytest.raises(VolumesError) as caught:
        plan(pod({"name": "a", "nfs": {}}, {"name": "b", "emptyDir": {}}, {"name": "c", "csi": {}}), NONE)
    assert [error.volume for error in caught.value.errors] == ["a", "c"]
