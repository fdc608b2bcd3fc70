"""Which addresses are given out, in which order."""

from __future__ import annotations

import ipaddress
from itertools import islice
from typing import Any

import pytest

from cni.call import ADD, Call
from cni.errors import InvalidConfig
from cni.ipam import read_ipam_conf, read_resolv_conf, requested_addresses
from cni.ranges import Range, RangeSet


def ranges(*docs: dict[str, Any]) -> RangeSet:
    return RangeSet.from_json(list(docs))


def order(item: RangeSet, last: str | None = None, taken: set[str] = frozenset(), count: int = 100) -> list[str]:  # type: ignore[assignment]
    after = ipaddress.ip_address(last) if last else None
    found = item.candidates(after, lambda address: str(address) not in taken)
    return [str(address) for address, _ in islice(found, count)]


def test_a_subnet_without_its_network_gateway_and_broadcast() -> None:
    assert order(ranges({"subnet": "10.0.0.0/29"})) == [f"10.0.0.{n}" for n in (2, 3, 4, 5, 6)]
    assert order(ranges({"subnet": "fd00::/126"})) == ["fd00::2", "fd00::3"]
    assert ranges({"subnet": "10.0.0.0/29"}).size() == 5


def test_the_search_goes_on_after_the_last_one_and_round() -> None:
    item = ranges({"subnet": "10.0.0.0/29"})
    assert order(item, "10.0.0.4") == [f"10.0.0.{n}" for n in (5, 6, 2, 3, 4)]
    assert order(item, "10.0.0.6") == [f"10.0.0.{n}" for n in (2, 3, 4, 5, 6)]
    assert order(item, "10.9.9.9") == [f"10.0.0.{n}" for n in (2, 3, 4, 5, 6)]
    assert order(item, "10.0.0.4", {"10.0.0.5", "10.0.0.2"}) == [f"10.0.0.{n}" for n in (6, 3, 4)]


def test_several_ranges_in_a_set() -> None:
    item = ranges(
        {"subnet": "10.0.0.0/24", "rangeStart": "10.0.0.10", "rangeEnd": "10.0.0.11"},
        {"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.1", "rangeEnd": "10.1.0.3", "gateway": "10.1.0.2"},
    )
    assert order(item) == ["10.0.0.10", "10.0.0.11", "10.1.0.1", "10.1.0.3"]
    assert order(item, "10.1.0.1") == ["10.1.0.3", "10.0.0.10", "10.0.0.11", "10.1.0.1"]
    found = item.find(ipaddress.ip_address("10.1.0.1"))
    assert found is not None and str(found.interface(found.start)) == "10.1.0.1/24"


def test_a_huge_subnet_costs_nothing() -> None:
    assert order(ranges({"subnet": "fd00::/64"}), count=2) == ["fd00::2", "fd00::3"]
    assert ranges({"subnet": "10.0.0.0/8"}).size() == 2**24 - 3


@pytest.mark.parametrize(
    ("doc", "reason"),
    [
        ({}, 'needs a "subnet"'),
        ({"subnet": "10.0.0.0/31"}, "too small"),
        ({"subnet": "10.0.0.1/24"}, "host bits set"),
        ({"subnet": "garbage"}, "not a network"),
        ({"subnet": "10.0.0.0/24", "rangeStart": "10.0.1.1"}, r"rangeStart 10\.0\.1\.1 is not in"),
        ({"subnet": "10.0.0.0/24", "rangeEnd": "fd00::1"}, "rangeEnd fd00::1 is not in"),
        ({"subnet": "10.0.0.0/24", "rangeStart": "10.0.0.9", "rangeEnd": "10.0.0.8"}, "comes after"),
        ({"subnet": "10.0.0.0/24", "gateway": "nobody"}, "gateway 'nobody'"),
    ],
)
def test_bad_ranges(doc: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidConfig, match=reason):
        Range.from_json(doc)


def test_bad_sets() -> None:
    with pytest.raises(InvalidConfig, match="mixes IPv4 and IPv6"):
        ranges({"subnet": "10.0.0.0/24"}, {"subnet": "fd00::/64"})
    with pytest.raises(InvalidConfig, match="overlap"):
        ranges({"subnet": "10.0.0.0/24"}, {"subnet": "10.0.0.0/25"})
    with pytest.raises(InvalidConfig, match="at least one"):
        RangeSet.from_json([])


def call(ipam: Any, version: str = "1.0.0", **extra: Any) -> Call:
    args = extra.pop("env", {})
    return Call(command=ADD, config={"cniVersion": version, "name": "n", "ipam": ipam, **extra}, args=args)


def test_old_and_new_style_and_capability_ranges() -> None:
    ipam = {"subnet": "10.0.0.0/24", "ranges": [[{"subnet": "fd00::/64"}]], "routes": [{"dst": "0.0.0.0/0"}]}
    conf = read_ipam_conf(call(ipam, runtimeConfig={"ipRanges": [[{"subnet": "10.5.0.0/24"}]]}))
    assert [str(item.ranges[0].subnet) for item in conf.sets] == ["10.5.0.0/24", "10.0.0.0/24", "fd00::/64"]
    assert conf.data_dir == "/var/lib/cni/networks" and str(conf.routes[0].dst) == "0.0.0.0/0"


@pytest.mark.parametrize(
    ("ipam", "version", "reason"),
    [
        (None, "1.0.0", 'no "ipam" object'),
        ({}, "1.0.0", "no ranges"),
        ({"subnet": "10.0.0.0/24", "ranges": [[{"subnet": "10.0.0.0/25"}]]}, "1.0.0", "overlap"),
        ({"ranges": [[{"subnet": "10.0.0.0/24"}], [{"subnet": "10.1.0.0/24"}]]}, "0.2.0", "no second address"),
        ({"subnet": "10.0.0.0/24", "dataDir": "../x"}, "1.0.0", "not an absolute path"),
        ({"subnet": "10.0.0.0/24", "routes": [{}]}, "1.0.0", "routes"),
        ({"subnet": "10.0.0.0/24", "routes": [{"dst": "all"}]}, "1.0.0", "routes"),
    ],
)
def test_bad_configurations(ipam: Any, version: str, reason: str) -> None:
    with pytest.raises(InvalidConfig, match=reason):
        read_ipam_conf(call(ipam, version))


def test_addresses_are_asked_for_in_three_ways() -> None:
    asked = call(
        {},
        env={"IP": "10.0.0.5/24"},
        args={"cni": {"ips": ["10.0.0.6"]}},
        runtimeConfig={"ips": ["fd00::7/64", "10.0.0.5"]},
    )
    assert [str(address) for address in requested_addresses(asked)] == ["10.0.0.5", "10.0.0.6", "fd00::7"]
    with pytest.raises(InvalidConfig, match="requested address"):
        requested_addresses(call({}, runtimeConfig={"ips": ["me"]}))


def test_resolv_conf(tmp_path: Any) -> None:
    path = tmp_path / "resolv.conf"
    path.write_text(
        "# c\n;d\nnameserver 10.0.0.53\nnameserver fd00::53\ndomain a.b\nsearch a b\noptions ndots:5 rotate\nbogus\n"
    )
    assert read_resolv_conf(str(path)).to_json() == {
        "nameservers": ["10.0.0.53", "fd00::53"],
        "domain": "a.b",
        "search": ["a", "b"],
        "options": ["ndots:5", "rotate"],
    }
