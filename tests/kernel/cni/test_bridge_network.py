"""Pods on the default network: what the kernel says inside and outside, from ADD to DEL."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest

from cni.attachment import Attachment
from cni.default import default_conflist
from cni.errors import CniError, InvalidNetns
from cni.network import Cni
from tests.kernel.cni.conftest import SUBNET, SUBNET6, TABLE, Node
from tests.support.netns import Netns, listen, output, reaches


def addresses(namespace: Netns | None, name: str) -> list[str]:
    text = (namespace.run if namespace else output)("ip", "-j", "address", "show", name)
    return [
        f"{item['local']}/{item['prefixlen']}" for item in json.loads(text)[0]["addr_info"] if item["scope"] == "global"
    ]


def link(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(output("ip", "-j", "-d", "link", "show", name))[0]
    return found


def links() -> set[str]:
    return {item["ifname"] for item in json.loads(output("ip", "-j", "link"))} - {"lo"}


def lease_names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir() if path.name != "lock" and "last" not in path.name}


async def test_add_connects_pods_with_each_other_and_the_host(node: Node) -> None:
    cni = node.cni()
    (first, one), (second, two) = node.pod(), node.pod()
    results = [await cni.add(one), await cni.add(two)]
    ips = [str(result.pod_addresses("eth0")[0].ip) for result in results]
    assert ips == ["10.201.0.2", "10.201.0.3"]
    assert addresses(first, "eth0") == ["10.201.0.2/24"]
    assert addresses(None, "br0") == ["10.201.0.1/24"]
    with second.do(lambda: listen("0.0.0.0", 80)) as server:
        assert first.do(lambda: reaches(ips[1], 80, server)) == ips[0]
        assert reaches(ips[1], 80, server) == "10.201.0.1"
    with listen("10.201.0.1", 81) as server:
        assert first.do(lambda: reaches("10.201.0.1", 81, server)) == ips[0]
    assert "127.0.0.1" in first.run("ip", "address", "show", "lo", "up")


async def test_the_result_lists_bridge_pair_address_and_route(node: Node) -> None:
    cni = node.cni()
    pod, attachment = node.pod()
    doc = (await cni.add(attachment)).to_json("1.1.0")
    bridge, outside, inside = doc["interfaces"]
    assert (bridge["name"], inside["name"], inside["sandbox"]) == ("br0", "eth0", pod.path)
    assert link("br0")["address"] == bridge["mac"]
    assert link(outside["name"])["address"] == outside["mac"]
    assert link(outside["name"])["master"] == "br0"
    assert inside["mac"] == "0a:58:0a:c9:00:02"
    assert inside["mac"] in pod.run("ip", "link", "show", "eth0")
    assert doc["ips"] == [{"address": "10.201.0.2/24", "gateway": "10.201.0.1", "interface": 2}]
    assert doc["routes"] == [{"dst": "0.0.0.0/0"}]
    assert "default via 10.201.0.1 dev eth0" in pod.run("ip", "route")


async def test_the_port_forwards_at_once_and_is_quiet(node: Node) -> None:
    cni = node.cni()
    _, attachment = node.pod()
    name = (await cni.add(attachment)).interfaces[1].name
    port = link(name)
    assert port["linkinfo"]["info_slave_data"]["state"] == "forwarding"
    assert port["linkinfo"]["info_slave_data"]["hairpin"] is True
    assert json.loads(output("ip", "-j", "-6", "address", "show", name)) in ([], [{}])
    assert Path("/proc/sys/net/ipv6/conf/br0/accept_ra").read_text().strip() == "0"
    assert Path("/proc/sys/net/ipv4/ip_forward").read_text().strip() == "1"


async def test_dual_stack_without_waiting_for_duplicate_address_detection(node: Node) -> None:
    cni = node.cni(default_conflist("br0", [SUBNET, SUBNET6], nft_table=TABLE))
    (first, one), (second, two) = node.pod(), node.pod()
    await cni.add(one)
    result = await cni.add(two)
    assert [str(address) for address in result.pod_addresses("eth0")] == ["10.201.0.3/24", "fd00:c9::3/64"]
    assert "tentative" not in second.run("ip", "-6", "address", "show", "scope", "global")
    with second.do(lambda: listen("fd00:c9::3", 80)) as server:
        assert first.do(lambda: reaches("fd00:c9::3", 80, server)) == "fd00:c9::2"
        assert reaches("fd00:c9::3", 80, server) == "fd00:c9::1"
    assert "default via fd00:c9::1" in first.run("ip", "-6", "route")
    assert Path("/proc/sys/net/ipv6/conf/all/forwarding").read_text().strip() == "1"


async def test_delete_leaves_nothing_of_the_pod(node: Node) -> None:
    cni = node.cni()
    pod, attachment = node.pod()
    result = await cni.add(attachment)
    name = result.interfaces[1].name
    assert {entry.kind for entry in node.ledger.entries(holder=attachment.container_id)} == {"cni", "ip", "link"}
    await cni.delete(attachment)
    assert "UP" not in link(name)["flags"]
    assert lease_names(node.leases) == set()
    assert {entry.kind for entry in node.ledger.entries(holder=attachment.container_id)} <= {"link"}
    for _ in range(40):
        await asyncio.sleep(0.1)
        if not node.ledger.entries(holder=attachment.container_id):
            break
    assert links() == {"br0"}
    assert node.ledger.entries(holder=attachment.container_id) == []
    assert "eth0" not in pod.run("ip", "link")
    assert list((node.root / "cache" / "results").iterdir()) == []


async def test_delete_again_and_of_what_never_was_is_success(node: Node) -> None:
    cni = node.cni()
    pod, attachment = node.pod()
    await cni.delete(attachment)
    await cni.add(attachment)
    await cni.delete(attachment)
    await cni.delete(attachment)
    pod.close()
    await cni.delete(attachment)


async def test_delete_after_the_namespace_has_gone(node: Node) -> None:
    cni = node.cni()
    pod, attachment = node.pod()
    await cni.add(attachment)
    pod.close()
    await cni.delete(attachment)
    assert lease_names(node.leases) == set()


async def test_an_attachment_can_come_back_at_once(node: Node) -> None:
    cni = node.cni()
    pod, attachment = node.pod()
    for last in (2, 3, 4):
        result = await cni.add(attachment)
        assert str(result.ips[0].address.ip) == f"10.201.0.{last}"
        assert addresses(pod, "eth0") == [f"10.201.0.{last}/24"]
        await cni.delete(attachment)


async def test_add_twice_is_refused_and_the_first_stays(node: Node) -> None:
    cni = node.cni()
    pod, attachment = node.pod()
    await cni.add(attachment)
    with pytest.raises(CniError, match="is attached to a network already; DEL comes before another ADD"):
        await cni.add(attachment)
    with pod.do(lambda: listen("0.0.0.0", 80)) as server:
        assert reaches("10.201.0.2", 80, server) == "10.201.0.1"
    await cni.check(attachment)


async def test_an_interface_that_the_pod_has_already_is_refused(node: Node) -> None:
    cni = node.cni()
    pod, attachment = node.pod()
    pod.run("ip", "link", "add", "eth0", "type", "veth")
    with pytest.raises(CniError, match="the pod has an interface eth0 already"):
        await cni.add(attachment)
    assert lease_names(node.leases) == set()
    assert node.ledger.entries(holder=attachment.container_id) == []
    assert links() == set()
    assert "eth0" in pod.run("ip", "link"), "it is not ours to remove"


async def test_the_hosts_own_namespace_is_refused(node: Node) -> None:
    cni = node.cni()
    _, attachment = node.pod()
    own = f"/proc/{os.getpid()}/ns/net"
    with pytest.raises(InvalidNetns, match="it must be the pod's"):
        await cni.add(type(attachment)(attachment.container_id, own, netlink=attachment.netlink))


async def test_a_missing_namespace_is_an_error_with_its_path(node: Node) -> None:
    cni = node.cni()
    _, attachment = node.pod()
    with pytest.raises(InvalidNetns, match="/run/netns/nowhere"):
        await cni.add(type(attachment)(attachment.container_id, "/run/netns/nowhere", netlink=attachment.netlink))


async def test_an_interface_that_is_no_bridge_is_refused(node: Node) -> None:
    output("ip", "link", "add", "br0", "type", "veth")
    cni = node.cni()
    _, attachment = node.pod()
    with pytest.raises(CniError, match="br0 exists and is not a bridge"):
        await cni.add(attachment)
    assert lease_names(node.leases) == set()


async def test_another_address_on_the_bridge_is_kept_unless_told_otherwise(node: Node) -> None:
    output("ip", "link", "add", "br0", "type", "bridge")
    output("ip", "address", "add", "10.202.0.1/24", "dev", "br0")
    conflist = default_conflist("br0", SUBNET, nft_table=TABLE)
    conflist["plugins"][0]["keepAddresses"] = False
    _, attachment = node.pod()
    with pytest.raises(CniError, match=r'br0 has the address 10\.202\.0\.1/24.*"forceAddress"'):
        await node.cni(conflist).add(attachment)
    conflist["plugins"][0]["forceAddress"] = True
    await node.cni(conflist).add(attachment)
    assert addresses(None, "br0") == ["10.201.0.1/24"]


async def test_another_subnet_for_new_pods_leaves_the_old_ones_connected(node: Node) -> None:
    cni = node.cni()
    (first, one), (second, two) = node.pod(), node.pod()
    await cni.add(one)
    cni.set_default(default_conflist("br0", "10.202.0.0/24", nft_table=TABLE))
    assert str((await cni.add(two)).ips[0].address) == "10.202.0.2/24"
    assert addresses(None, "br0") == ["10.201.0.1/24", "10.202.0.1/24"]
    with first.do(lambda: listen("0.0.0.0", 80)) as server:
        assert second.do(lambda: reaches("10.201.0.2", 80, server)) == "10.201.0.1"
    await cni.delete(one)
    assert lease_names(node.leases) == {"10.202.0.2"}


async def test_a_bridge_that_was_removed_is_made_again(node: Node) -> None:
    cni = node.cni()
    _, one = node.pod()
    await cni.add(one)
    output("ip", "link", "del", "br0")
    second, two = node.pod()
    await cni.add(two)
    with listen("10.201.0.1", 81) as server:
        assert second.do(lambda: reaches("10.201.0.1", 81, server)) == "10.201.0.3"


async def bridge_removed_under(node: Node, cni: Cni) -> tuple[Netns, Attachment]:
    """A pod that was there before; a connection to its gateway has told it the bridge's MAC address."""
    pod, attachment = node.pod()
    await cni.add(attachment)
    with listen("10.201.0.1", 81) as server:
        pod.do(lambda: reaches("10.201.0.1", 81, server))
    output("ip", "link", "del", "br0")
    with pytest.raises(CniError, match="bridge br0 is not on the host any more"):
        await cni.check(attachment)
    return pod, attachment


async def test_pods_of_before_are_ports_of_the_bridge_that_is_made_again(node: Node) -> None:
    isolated = default_conflist("br0", SUBNET, nft_table=TABLE)
    isolated["plugins"][0]["portIsolation"] = True
    cni = node.cni(isolated)
    first, one = await bridge_removed_under(node, cni)
    second, two = node.pod()
    await cni.add(two)
    for attachment in (one, two):
        await cni.check(attachment)
    with listen("10.201.0.1", 81) as server:
        for pod, address in ((first, "10.201.0.2"), (second, "10.201.0.3")):
            assert pod.do(lambda: reaches("10.201.0.1", 81, server)) == address


async def test_a_start_makes_a_bridge_again_that_pods_need(node: Node) -> None:
    cni = node.cni()
    pod, attachment = await bridge_removed_under(node, cni)
    await cni.close()
    cni = node.cni()
    assert await cni.recover([attachment.container_id]) == []
    await cni.check(attachment)
    with listen("10.201.0.1", 81) as server:
        assert pod.do(lambda: reaches("10.201.0.1", 81, server)) == "10.201.0.2"


async def test_check_finds_what_is_missing(node: Node) -> None:
    cni = node.cni()
    pod, attachment = node.pod()
    with pytest.raises(CniError, match="attached to no network"):
        await cni.check(attachment)
    result = await cni.add(attachment)
    await cni.check(attachment)
    pod.run("ip", "route", "del", "default")
    with pytest.raises(CniError, match=r"lost the route to 0\.0\.0\.0/0"):
        await cni.check(attachment)
    pod.run("ip", "route", "add", "default", "via", "10.201.0.1")
    pod.run("ip", "address", "add", "10.9.9.9/32", "dev", "eth0")
    await cni.check(attachment)
    output("ip", "link", "set", result.interfaces[1].name, "nomaster")
    with pytest.raises(CniError, match="not an active port of br0"):
        await cni.check(attachment)
    pod.run("ip", "link", "del", "eth0")
    with pytest.raises(CniError, match="no veth interface eth0 any more"):
        await cni.check(attachment)


async def test_mtu_and_mac_are_as_asked_for(node: Node) -> None:
    conflist = default_conflist("br0", SUBNET, nft_table=TABLE)
    conflist["plugins"][0]["mtu"] = 1400
    pod, attachment = node.pod(capability_args={"mac": "02:aa:bb:cc:dd:ee", "ips": ["10.201.0.77"]})
    result = await node.cni(conflist).add(attachment)
    assert str(result.ips[0].address) == "10.201.0.77/24"
    inside = pod.run("ip", "link", "show", "eth0")
    assert "mtu 1400" in inside and "02:aa:bb:cc:dd:ee" in inside
    assert link(result.interfaces[1].name)["mtu"] == link("br0")["mtu"] == 1400


async def test_many_at_once_each_with_an_address_of_its_own(node: Node) -> None:
    cni = node.cni()
    pods = [node.pod() for _ in range(24)]
    results = await asyncio.gather(*(cni.add(attachment) for _, attachment in pods))
    given = [result.ips[0].address.ip for result in results]
    assert len(set(given)) == 24
    assert lease_names(node.leases) == {str(ip) for ip in given}
    half = [cni.delete(attachment) for _, attachment in pods[:12]]
    again = [cni.add(node.pod()[1]) for _ in range(4)]
    mixed = await asyncio.gather(*half, *again)
    fresh = [result.ips[0].address.ip for result in mixed[12:] if result is not None]
    assert not set(fresh) & set(given[12:])
    assert len(lease_names(node.leases)) == 16


async def test_a_network_without_addresses_is_a_link(node: Node) -> None:
    conflist = {"cniVersion": "1.0.0", "name": "l2", "plugins": [{"type": "bridge", "bridge": "br0"}]}
    cni = node.cni(conflist)
    pod, attachment = node.pod()
    result = await cni.add(attachment)
    assert result.ips == [] and len(result.interfaces) == 3
    assert "state UP" in pod.run("ip", "link", "show", "eth0")
    await cni.check(attachment)
    await cni.delete(attachment)


async def test_teardown_removes_what_the_network_had(node: Node) -> None:
    Path("/proc/sys/net/ipv4/ip_forward").write_text("0")
    cni = node.cni()
    _, attachment = node.pod()
    await cni.add(attachment)
    assert await cni.teardown() == ["1 pods are attached: bridges, rules and settings stay"]
    await cni.delete(attachment)
    assert await cni.teardown() == []
    assert links() == set()
    assert output("nft", "list", "tables") == ""
    assert Path("/proc/sys/net/ipv4/ip_forward").read_text().strip() == "0"
    assert node.ledger.entries() == []
