"""Port mappings and the firewall's elements, as text that goes to nftables."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest

from cni.call import ADD, Call
from cni.errors import CniError, InvalidConfig
from cni.firewall import COMMENT_LIMIT, Element, Firewall, masquerade, owner_name, owner_prefix
from cni.nftables import Nftables
from cni.portmappings import elements_of, keys_of, read_port_mappings
from cni.ports import host_mac, host_name, pod_mac

PODS = [ipaddress.ip_interface(text) for text in ("10.0.0.2/24", "fd00::2/64", "10.9.9.9/24")]


def call(*mappings: Any, **extra: Any) -> Call:
    config = {"name": "net", "runtimeConfig": {"portMappings": list(mappings)}}
    return Call(command=ADD, config=config, container_id="c1", ifname=extra.get("ifname", "eth0"))


def test_elements_of_both_families() -> None:
    request = call(
        {"hostPort": 80, "containerPort": 8080},
        {"hostPort": 53, "containerPort": 5353, "protocol": "UDP", "hostIP": "192.0.2.1"},
        {"hostPort": 54, "containerPort": 54, "protocol": "sctp", "hostIP": "::"},
    )
    elements = elements_of(request, read_port_mappings(request), PODS)
    assert [(item.where, str(item)) for item in elements] == [
        ("ports4", 'tcp . 80 comment "net c1 eth0" : 10.0.0.2 . 8080'),
        ("address_ports4", '192.0.2.1 . udp . 53 comment "net c1 eth0" : 10.0.0.2 . 5353'),
        ("ports6", 'tcp . 80 comment "net c1 eth0" : fd00::2 . 8080'),
        ("ports6", 'sctp . 54 comment "net c1 eth0" : fd00::2 . 54'),
    ]
    keys = {(item.where, item.key) for item in keys_of(request, read_port_mappings(request))}
    assert keys >= {(item.where, item.key) for item in elements}


@pytest.mark.parametrize(
    "mapping",
    [
        None,
        {},
        {"hostPort": 80},
        {"hostPort": True, "containerPort": 80},
        {"hostPort": -1, "containerPort": 80},
        {"hostPort": 80, "containerPort": 65536},
        {"hostPort": 80, "containerPort": 80, "protocol": "tcp; flush ruleset"},
        {"hostPort": 80, "containerPort": 80, "hostIP": "localhost"},
    ],
)
def test_what_is_no_mapping(mapping: Any) -> None:
    with pytest.raises(InvalidConfig, match="portmap"):
        read_port_mappings(call(mapping))


def test_one_port_twice() -> None:
    with pytest.raises(InvalidConfig, match="80/tcp is mapped twice"):
        read_port_mappings(call({"hostPort": 80, "containerPort": 1}, {"hostPort": 80, "containerPort": 2}))
    same = {"hostPort": 80, "containerPort": 1}
    assert len(read_port_mappings(call(same, same))) == 1


def test_an_owner_is_a_comment_that_cannot_end_itself() -> None:
    assert owner_name("net", "c1", "eth0") == "net c1 eth0"
    assert '"' not in owner_name("net", "c1", 'e"}{;') and "}" not in owner_name("net", "c1", "e}")
    for network, container_id in (("n" * 128, "c" * 100), ("n" * 40, "c" * 100), ("n", "c" * 100)):
        name = owner_name(network, container_id, "%" * 15)
        assert len(name) <= COMMENT_LIMIT and name.startswith(owner_prefix(network))
    assert owner_prefix("a" * 60) != owner_prefix("a" * 61)


def test_the_elements_of_a_network() -> None:
    four, six = (masquerade(ipaddress.ip_network(text), "net") for text in ("10.0.0.0/24", "fd00::/64"))
    assert [str(item) for item in four] == [
        '10.0.0.0/24 . 10.0.0.0/24 comment "net"',
        '10.0.0.0/24 . 0.0.0.0/0 comment "net"',
    ]
    assert [item.where for item in six] == ["inside6", "masquerade6"]
    assert Element.from_json(four[0].to_json()) == four[0]


@pytest.mark.parametrize("name", ["", "a b", "a;b", "9a", "a" * 70])
def test_table_names(name: str) -> None:
    with pytest.raises(CniError, match="no name for an nftables table"):
        Firewall(Nftables(), name)


def test_names_and_mac_addresses_follow_from_the_attachment() -> None:
    names = {host_name("net", f"c{number}", "eth0") for number in range(200)}
    assert len(names) == 200 and all(len(name) == 15 and name.startswith("veth") for name in names)
    assert host_name("net", "c1", "eth0") == host_name("net", "c1", "eth0") != host_name("net", "c1", "net1")
    for mac in (
        host_mac("net", "c1", "eth0"),
        pod_mac(PODS[1], "net", "c1", "eth0"),
        pod_mac(None, "net", "c1", "eth0"),
    ):
        assert int(mac[:2], 16) & 3 == 2, "locally administered, one station"
    assert pod_mac(PODS[0], "net", "c1", "eth0") == "0a:58:0a:00:00:02"
