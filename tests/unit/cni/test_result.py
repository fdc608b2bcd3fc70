"""Results in every version's form, in and out."""

from __future__ import annotations

from typing import Any

import pytest

from cni import versions
from cni.errors import CniError, DecodingFailure
from cni.result import Result, parse_result

FULL: dict[str, Any] = {
    "cniVersion": "1.1.0",
    "interfaces": [
        {"name": "br0", "mac": "02:00:00:00:00:01", "mtu": 1500},
        {"name": "eth0", "mac": "0a:58:0a:00:00:02", "sandbox": "/run/netns/x", "socketPath": "/s", "pciID": "0:1"},
    ],
    "ips": [
        {"address": "10.0.0.2/24", "gateway": "10.0.0.1", "interface": 1},
        {"address": "fd00::2/64", "gateway": "fd00::1", "interface": 1},
        {"address": "10.9.0.2/24", "interface": 1},
    ],
    "routes": [
        {"dst": "0.0.0.0/0"},
        {"dst": "10.8.0.0/16", "gw": "10.0.0.9", "mtu": 1400, "advmss": 1300, "priority": 5, "table": 7, "scope": 0},
        {"dst": "::/0"},
    ],
    "dns": {"nameservers": ["10.0.0.53"], "domain": "local", "search": ["a.local"], "options": ["ndots:5"]},
}


def test_the_newest_form_survives_unchanged() -> None:
    assert parse_result(FULL, "").to_json("1.1.0") == FULL


@pytest.mark.parametrize("version", ["0.3.0", "0.3.1", "0.4.0"])
def test_lists_with_a_version_beside_each_address(version: str) -> None:
    doc = parse_result(FULL, "").to_json(version)
    assert [ip["version"] for ip in doc["ips"]] == ["4", "6", "4"]
    assert doc["interfaces"][1] == {"name": "eth0", "mac": "0a:58:0a:00:00:02", "sandbox": "/run/netns/x"}
    assert doc["routes"][1] == {"dst": "10.8.0.0/16", "gw": "10.0.0.9"}
    assert parse_result(doc, "").to_json(version) == doc


@pytest.mark.parametrize("version", ["0.1.0", "0.2.0"])
def test_one_address_of_each_family(version: str) -> None:
    doc = parse_result(FULL, "").to_json(version)
    assert doc["ip4"] == {
        "ip": "10.0.0.2/24",
        "gateway": "10.0.0.1",
        "routes": [{"dst": "0.0.0.0/0"}, {"dst": "10.8.0.0/16", "gw": "10.0.0.9"}],
    }
    assert doc["ip6"] == {"ip": "fd00::2/64", "gateway": "fd00::1", "routes": [{"dst": "::/0"}]}
    again = parse_result(doc, "").to_json("1.0.0")
    assert [ip["address"] for ip in again["ips"]] == ["10.0.0.2/24", "fd00::2/64"]
    assert again["dns"] == FULL["dns"]


def test_an_old_form_needs_an_address() -> None:
    with pytest.raises(CniError, match=r"no form before CNI 0\.3\.0"):
        Result().to_json("0.2.0")


@pytest.mark.parametrize("version", versions.SUPPORTED)
def test_a_result_that_tells_no_version_has_that_of_the_configuration(version: str) -> None:
    doc = {key: value for key, value in parse_result(FULL, "").to_json(version).items() if key != "cniVersion"}
    assert parse_result(doc, version).to_json(version) == doc | {"cniVersion": version}


@pytest.mark.parametrize(
    "doc",
    [
        None,
        [],
        "result",
        {"cniVersion": "7.0.0"},
        {"cniVersion": 1},
        {"cniVersion": "1.0.0", "ips": [{"address": "10.0.0.300/24"}]},
        {"cniVersion": "1.0.0", "ips": [{}]},
        {"cniVersion": "1.0.0", "ips": [{"address": "10.0.0.2/24", "interface": "eth0"}]},
        {"cniVersion": "1.0.0", "ips": "10.0.0.2"},
        {"cniVersion": "1.0.0", "interfaces": [{"mac": "x"}]},
        {"cniVersion": "1.0.0", "routes": [{"gw": "10.0.0.1"}]},
        {"cniVersion": "1.0.0", "dns": ["10.0.0.1"]},
        {"cniVersion": "0.2.0", "ip4": "10.0.0.2/24"},
    ],
)
def test_what_is_no_result(doc: Any) -> None:
    with pytest.raises(DecodingFailure, match="not a CNI result"):
        parse_result(doc, "1.0.0")


def test_null_and_missing_lists_are_empty() -> None:
    result = parse_result({"cniVersion": "1.0.0", "ips": None, "dns": None}, "")
    assert result == Result() and result.to_json("1.0.0") == {"cniVersion": "1.0.0"}


def test_the_pods_addresses_are_those_of_its_interface() -> None:
    result = parse_result(FULL, "")
    assert [str(address) for address in result.pod_addresses("eth0")] == ["10.0.0.2/24", "fd00::2/64", "10.9.0.2/24"]
    assert result.pod_addresses("net1") == []
    result.ips[0].interface = None
    result.ips[1].interface = 0
    assert [str(address) for address in result.pod_addresses("eth0")] == ["10.0.0.2/24", "10.9.0.2/24"]
