"""Which version is spoken, and which names are let in."""

from __future__ import annotations

from typing import Any

import pytest

from cni import versions
from cni.errors import CniError, IncompatibleVersion, InvalidConfig, InvalidEnvironment
from cni.names import check_container_id, check_ifname, check_network_name, check_plugin_type


@pytest.mark.parametrize(
    ("doc", "spoken"),
    [
        ({}, "0.1.0"),
        ({"cniVersion": "0.3.1"}, "0.3.1"),
        ({"cniVersion": "1.0"}, "1.0.0"),
        ({"cniVersion": "0.4.0", "cniVersions": ["0.3.1", "1.1.0", "1.0.0"]}, "1.1.0"),
        ({"cniVersion": "2.0.0", "cniVersions": ["1.0.0"]}, "1.0.0"),
        ({"cniVersions": ["0.3.0", "9.0.0"]}, "0.3.0"),
    ],
)
def test_the_highest_common_version_is_spoken(doc: dict[str, Any], spoken: str) -> None:
    assert versions.select(doc) == spoken


@pytest.mark.parametrize("doc", [{"cniVersion": "1.2.0"}, {"cniVersions": ["3.0.0"]}, {"cniVersion": "0.9.9"}])
def test_no_common_version(doc: dict[str, Any]) -> None:
    with pytest.raises(IncompatibleVersion, match=r"asks for .*; spoken here: 0\.1\.0"):
        versions.select(doc)


@pytest.mark.parametrize(
    "doc", [{"cniVersion": "one"}, {"cniVersion": 1.0}, {"cniVersions": "1.0.0"}, {"cniVersion": "1.0.0.0"}]
)
def test_what_is_no_version(doc: dict[str, Any]) -> None:
    with pytest.raises(InvalidConfig):
        versions.select(doc)


def test_order_is_by_number() -> None:
    assert versions.at_least("1.0.0", "0.4.0") and versions.at_least("0.10.0", "0.9.0")
    assert not versions.at_least("0.3.1", "0.4.0")


@pytest.mark.parametrize("name", ["", "../etc", "a/b", "a b", "-a", ".hidden", "a" * 129, None, 7, "a\n", "é"])
def test_network_names_that_could_be_paths(name: object) -> None:
    with pytest.raises(InvalidConfig):
        check_network_name(name)


@pytest.mark.parametrize(
    "kind", ["", "../../bin/sh", "/bin/sh", "a\\b", "..", ".", "a b", "x\0", "a\n", None, ["bridge"]]
)
def test_plugin_types_that_could_be_paths(kind: object) -> None:
    """CVE-2021-20206."""
    with pytest.raises(InvalidConfig):
        check_plugin_type(kind)


@pytest.mark.parametrize("kind", ["bridge", "host-local", "cilium-cni", "ovn-k8s-cni-overlay", "_x", "a.out", "p2p+x"])
def test_plugin_types_that_are_in_use(kind: str) -> None:
    assert check_plugin_type(kind) == kind


@pytest.mark.parametrize("ifname", ["", ".", "..", "a/b", "a:b", "a b", "a\tb", "0123456789abcdef"])
def test_interface_names_that_the_kernel_refuses(ifname: str) -> None:
    with pytest.raises(InvalidEnvironment):
        check_ifname(ifname)


@pytest.mark.parametrize("container_id", ["", "-x", "a/b", "a;b", "x" * 101])
def test_container_ids(container_id: str) -> None:
    with pytest.raises(InvalidEnvironment, match="CNI_CONTAINERID"):
        check_container_id(container_id)
    assert check_container_id("f" * 64) and check_container_id("pod_1.a-b")


def test_an_error_tells_code_message_and_details() -> None:
    error = CniError("cannot", "because", code=11)
    assert str(error) == "cannot; because"
    assert error.to_json("1.0.0") == {"cniVersion": "1.0.0", "code": 11, "msg": "cannot", "details": "because"}
    assert "details" not in CniError("cannot").to_json("1.0.0")
