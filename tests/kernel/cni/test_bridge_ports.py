"""Ports of a bridge: VLANs, isolation, interfaces that are left down; what the kernel says, and where packets go."""

from __future__ import annotations

import json
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from cni.attachment import Attachment
from cni.default import default_conflist
from cni.errors import CniError, InvalidConfig
from cni.network import Cni
from cni.result import Result
from tests.kernel.cni.conftest import SUBNET, SUBNET6, TABLE, Node
from tests.support.netns import Netns, listen, output, reaches

NATIVE = ["PVID", "Egress Untagged"]


def network(node: Node, name: str = "br0", subnet: str | list[str] = SUBNET, **options: Any) -> Cni:
    """The default network, with options of the bridge plugin."""
    conflist = default_conflist("br0", subnet, nft_table=TABLE) | {"name": name}
    conflist["plugins"][0] |= options
    conflist["plugins"][0]["ipam"]["dataDir"] = str(node.root / "leases")
    return node.cni(conflist)


def link_layer(node: Node, **options: Any) -> Cni:
    """A network without addresses."""
    plugin = {"type": "bridge", "bridge": "br0", **options}
    return node.cni({"cniVersion": "1.0.0", "name": "l2", "plugins": [plugin]})


async def attached(node: Node, cni: Cni) -> tuple[Netns, Attachment, Result]:
    pod, attachment = node.pod()
    return pod, attachment, await cni.add(attachment)


def vlans(port: str) -> dict[int, list[str]]:
    """VLAN -> flags, as bridge(8) shows them."""
    [found] = json.loads(output("bridge", "-j", "vlan", "show", "dev", port))
    ranges = [(each["vlan"], each.get("vlanEnd", each["vlan"]), each.get("flags", [])) for each in found["vlans"]]
    return {vlan: flags for first, last, flags in ranges for vlan in range(first, last + 1)}


def details(name: str) -> dict[str, Any]:
    [found] = json.loads(output("ip", "-j", "-d", "link", "show", name))
    data: dict[str, Any] = found["linkinfo"]
    return data


def can_add(*words: str) -> bool:
    done = subprocess.run(["ip", "link", "add", "probe", *words], capture_output=True, timeout=10)
    if done.returncode == 0:
        output("ip", "link", "delete", "probe")
    return done.returncode == 0


@pytest.fixture
def vlan_filtering(host: None) -> None:
    if not can_add("type", "bridge", "vlan_filtering", "1"):
        pytest.skip("the kernel has no VLAN filtering of bridges (CONFIG_BRIDGE_VLAN_FILTERING)")


@pytest.fixture
def vlan_interfaces(vlan_filtering: None) -> None:
    output("ip", "link", "add", "under", "type", "bridge")
    able = can_add("link", "under", "type", "vlan", "id", "7")
    output("ip", "link", "delete", "under")
    if not able:
        pytest.skip("the kernel has no VLAN interfaces (CONFIG_VLAN_8021Q)")


@pytest.mark.usefixtures("vlan_interfaces")
async def test_pods_of_one_vlan_reach_each_other_and_nobody_else(node: Node) -> None:
    seven, eight = network(node, "seven", vlan=7), network(node, "eight", "10.208.0.0/24", vlan=8)
    (one, first, result), (two, _, _) = await attached(node, seven), await attached(node, seven)
    other, _, others = await attached(node, eight)
    assert details("br0")["info_data"]["vlan_filtering"] == 1
    assert vlans(result.interfaces[1].name) == {7: NATIVE}
    assert vlans(others.interfaces[1].name) == {8: NATIVE}
    with two.do(lambda: listen("10.201.0.3", 80)) as server:
        assert one.do(lambda: reaches("10.201.0.3", 80, server)) == "10.201.0.2"
        assert reaches("10.201.0.3", 80, server) == "10.201.0.1"
        other.run("ip", "address", "add", "10.201.0.9/24", "dev", "eth0")
        assert other.do(lambda: reaches("10.201.0.3", 80, server, timeout=0.3)) == ""
    await seven.check(first)


@pytest.mark.usefixtures("vlan_interfaces")
async def test_the_gateway_is_in_the_vlan(node: Node) -> None:
    cni = network(node, vlan=7, preserveDefaultVlan=True)
    pod, attachment, result = await attached(node, cni)
    assert [item.name for item in result.interfaces][3:] == ["br0.7"]
    assert details("br0.7")["info_data"]["id"] == 7
    assert "10.201.0.1/24" in output("ip", "address", "show", "br0.7")
    assert "10.201.0.1" not in output("ip", "address", "show", "br0")
    assert vlans(result.interfaces[1].name) == {1: ["Egress Untagged"], 7: NATIVE}
    with listen("10.201.0.1", 81) as server:
        assert pod.do(lambda: reaches("10.201.0.1", 81, server)) == "10.201.0.2"
    await cni.check(attachment)
    await cni.delete(attachment)
    assert await cni.teardown() == []
    assert {item["ifname"] for item in json.loads(output("ip", "-j", "link"))} == {"lo"}
    assert node.ledger.entries() == []


@pytest.mark.usefixtures("vlan_interfaces")
async def test_an_interface_of_the_vlan_that_was_removed_is_made_again(node: Node) -> None:
    cni = network(node, vlan=7)
    await attached(node, cni)
    output("ip", "link", "delete", "br0.7")
    pod, _, _ = await attached(node, cni)
    with listen("10.201.0.1", 81) as server:
        assert pod.do(lambda: reaches("10.201.0.1", 81, server)) == "10.201.0.3"


@pytest.mark.usefixtures("vlan_interfaces")
async def test_host_ports_lead_into_the_vlan(node: Node) -> None:
    cni = network(node, vlan=7)
    ports = [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]
    pod, attachment = node.pod(capability_args={"portMappings": ports})
    await cni.add(attachment)
    with pod.do(lambda: listen("0.0.0.0", 80)) as server:
        assert reaches("127.0.0.1", 8080, server) == "10.201.0.1"


@pytest.mark.usefixtures("vlan_interfaces")
async def test_a_trunk_passes_its_vlans_with_their_tags(node: Node) -> None:
    cni = link_layer(node, vlanTrunk=[{"minID": 100, "maxID": 102}, {"id": 200}])
    made = [await attached(node, cni) for _ in range(2)]
    assert vlans(made[0][2].interfaces[1].name) == {1: NATIVE, 100: [], 101: [], 102: [], 200: []}
    for number, (pod, _, _) in enumerate(made, start=1):
        for vlan in (101, 103):
            pod.run("ip", "link", "add", "link", "eth0", "name", f"v{vlan}", "type", "vlan", "id", str(vlan))
            pod.run("ip", "address", "add", f"10.9.{vlan}.{number}/24", "dev", f"v{vlan}")
            pod.run("ip", "link", "set", f"v{vlan}", "up")
    with made[1][0].do(lambda: listen("0.0.0.0", 80)) as server:
        assert made[0][0].do(lambda: reaches("10.9.101.2", 80, server)) == "10.9.101.1"
        assert made[0][0].do(lambda: reaches("10.9.103.2", 80, server, timeout=0.3)) == ""
    await cni.check(made[0][1])


@pytest.mark.usefixtures("vlan_filtering")
async def test_a_trunk_with_a_native_vlan(node: Node) -> None:
    cni = link_layer(node, vlan=7, vlanTrunk=[{"minID": 7, "maxID": 8}])
    _, attachment, result = await attached(node, cni)
    assert vlans(result.interfaces[1].name) == {7: NATIVE, 8: []}
    await cni.check(attachment)


@pytest.mark.usefixtures("vlan_interfaces")
async def test_check_finds_a_port_in_the_wrong_vlans(node: Node) -> None:
    cni = network(node, vlan=7)
    _, attachment, result = await attached(node, cni)
    port = result.interfaces[1].name
    for change, undo, words in (
        (f"bridge vlan add dev {port} vid 9", f"bridge vlan del dev {port} vid 9", "in VLAN 9, which is not the pod's"),
        (
            f"bridge vlan add dev {port} vid 7",
            f"bridge vlan add dev {port} vid 7 pvid untagged",
            "7 is not the native",
        ),
        ("ip link set br0 type bridge vlan_filtering 0", "ip link set br0 type bridge vlan_filtering 1", "is off"),
    ):
        output(*change.split())
        with pytest.raises(CniError, match=words):
            await cni.check(attachment)
        output(*undo.split())
        await cni.check(attachment)


@pytest.mark.usefixtures("vlan_filtering")
async def test_a_bridge_that_was_there_begins_to_mind_vlans(node: Node) -> None:
    output("ip", "link", "add", "br0", "type", "bridge")
    _, _, result = await attached(node, link_layer(node, vlan=7))
    assert details("br0")["info_data"]["vlan_filtering"] == 1
    assert vlans(result.interfaces[1].name) == {7: NATIVE}


@pytest.mark.usefixtures("vlan_interfaces")
async def test_a_name_with_no_room_for_the_vlan_is_refused_and_nothing_stays(node: Node) -> None:
    with pytest.raises(InvalidConfig, match=r"no interface can be called fourteen-chars\.7"):
        await attached(node, network(node, vlan=7, bridge="fourteen-chars"))
    assert not [path for path in (node.root / "leases" / "br0").iterdir() if path.name[0].isdigit()]


async def test_isolated_ports_reach_the_host_only(node: Node) -> None:
    cni = network(node, portIsolation=True)
    (one, attachment, result), (two, _, _) = await attached(node, cni), await attached(node, cni)
    with two.do(lambda: listen("10.201.0.3", 80)) as server:
        assert reaches("10.201.0.3", 80, server) == "10.201.0.1"
        assert one.do(lambda: reaches("10.201.0.3", 80, server, timeout=0.3)) == ""
    with listen("10.201.0.1", 81) as server:
        assert one.do(lambda: reaches("10.201.0.1", 81, server)) == "10.201.0.2"
    await cni.check(attachment)
    output("bridge", "link", "set", "dev", result.interfaces[1].name, "isolated", "off")
    with pytest.raises(CniError, match="not isolated from the other ports of br0 any more"):
        await cni.check(attachment)


async def test_an_address_that_another_machine_has_is_refused_and_given_back(node: Node) -> None:
    cni = network(node, subnet=[SUBNET, SUBNET6], enabledad=True)
    pod, _, result = await attached(node, cni)
    [address] = [item for item in result.pod_addresses("eth0") if item.version == 6]
    shown = pod.run("ip", "-6", "address", "show", "eth0", "scope", "global")
    assert str(address) in shown and "tentative" not in shown and "nodad" not in shown
    pod.run("ip", "address", "add", "fd00:c9::99/64", "dev", "eth0", "nodad")
    _, asking = node.pod(capability_args={"ips": ["10.201.0.99", "fd00:c9::99"]})
    with pytest.raises(CniError, match="fd00:c9::99 is taken by another machine of the network"):
        await cni.add(asking)
    assert "10.201.0.99" not in {path.name for path in (node.root / "leases" / "br0").iterdir()}


async def test_an_interface_that_is_left_down(node: Node) -> None:
    cni = link_layer(node, disableContainerInterface=True)
    pod, attachment, _ = await attached(node, cni)
    assert "state DOWN" in pod.run("ip", "link", "show", "eth0")
    assert "state UNKNOWN" in pod.run("ip", "link", "show", "lo"), "a loopback that is up has no other state"
    await cni.check(attachment)
    pod.run("ip", "link", "set", "eth0", "up")
    await cni.check(attachment)
    with pytest.raises(InvalidConfig, match="disableContainerInterface and ipam exclude each other"):
        await attached(node, network(node, "other", disableContainerInterface=True))


@pytest.mark.usefixtures("vlan_interfaces")
async def test_settings_of_the_host_are_put_back_after_a_vlan(node: Node) -> None:
    Path("/proc/sys/net/ipv4/ip_forward").write_text("0")
    cni = network(node, vlan=7)
    _, attachment, _ = await attached(node, cni)
    await cni.delete(attachment)
    assert await cni.teardown() == []
    assert Path("/proc/sys/net/ipv4/ip_forward").read_text().strip() == "0"


async def test_a_kernel_that_cannot_says_which_option_it_lacks(node: Node) -> None:
    if can_add("type", "bridge", "vlan_filtering", "1"):
        pytest.skip("this kernel filters VLANs")
    with pytest.raises(CniError, match=r"vlan: switch VLAN filtering of br0 on: .*CONFIG_BRIDGE_VLAN_FILTERING"):
        await attached(node, link_layer(node, vlan=7))


#: An EtherType for experiments (IEEE 802, local experimental 1).
EXPERIMENT = 0x88B5


def heard(pod: Netns, *macs: str) -> str:
    """The MAC address that is first seen on the bridge when the pod sends to everybody as each of these."""

    def send() -> None:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as mouth:
            mouth.bind(("eth0", 0))
            for mac in macs:
                mouth.send(
                    b"\xff" * 6 + bytes.fromhex(mac.replace(":", "")) + EXPERIMENT.to_bytes(2, "big") + bytes(46)
                )

    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as ear:
        ear.bind(("br0", EXPERIMENT))
        ear.settimeout(5)
        pod.do(send)
        return ear.recv(64)[6:12].hex(":")


@pytest.mark.parametrize("removed", [False, True], ids=["", "and the bridge was made again"])
async def test_a_pod_sends_from_its_own_mac_address_only(node: Node, removed: bool) -> None:
    cni = network(node, macspoofchk=True)
    pod, attachment, result = await attached(node, cni)
    neighbour, _, its = await attached(node, cni)
    if removed:
        output("ip", "link", "del", "br0")
        await attached(node, cni)
    await cni.check(attachment)
    own, theirs, nobodys = result.interfaces[2].mac, its.interfaces[2].mac, "0a:58:0a:c9:00:63"
    assert heard(pod, nobodys, theirs, own) == own
    with listen("10.201.0.1", 81) as server:
        assert pod.do(lambda: reaches("10.201.0.1", 81, server)) == "10.201.0.2"
        assert neighbour.do(lambda: reaches("10.201.0.1", 81, server)) == "10.201.0.3"
    output("ip", "link", "set", result.interfaces[1].name, "type", "bridge_slave", "locked", "off")
    with pytest.raises(CniError, match="lets packets of every MAC address in"):
        await cni.check(attachment)
    assert heard(pod, nobodys, own) == nobodys
