"""Host ports: who reaches the pod by them, and who must not."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cni.default import default_conflist
from cni.errors import CniError, UnsupportedField
from cni.network import Cni
from tests.kernel.cni.conftest import SUBNET, SUBNET6, TABLE, Node
from tests.support.netns import Netns, Uplink, listen, output, reaches

WEB = {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}


@pytest.fixture
def uplink(netns: Callable[[], Netns]) -> Uplink:
    return Uplink(netns())


@pytest.fixture(params=["1", "0"], ids=["bridge-nf", "no-bridge-nf"])
def bridge_netfilter(host: None, request: pytest.FixtureRequest) -> None:
    """Whether packets between ports of a bridge pass nftables, too: both are found on real hosts."""
    setting = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
    if not setting.exists():
        pytest.skip("the kernel has no br_netfilter")
    setting.write_text(request.param)


def publishing(node: Node, *mappings: dict[str, Any]) -> tuple[Netns, Any]:
    return node.pod(capability_args={"portMappings": list(mappings)})


@pytest.mark.usefixtures("bridge_netfilter")
async def test_from_everywhere(node: Node, uplink: Uplink) -> None:
    cni = node.cni()
    pod, attachment = publishing(node, WEB)
    neighbour, other = node.pod()
    await cni.add(attachment)
    await cni.add(other)
    with pod.do(lambda: listen("0.0.0.0", 80)) as server:
        assert uplink.outside.do(lambda: reaches(Uplink.HOST, 8080, server)) == Uplink.OUTSIDE
        assert reaches(Uplink.HOST, 8080, server) == Uplink.HOST
        assert reaches("127.0.0.1", 8080, server) == "10.201.0.1"
        assert reaches("10.201.0.1", 8080, server) == "10.201.0.1"
        assert neighbour.do(lambda: reaches(Uplink.HOST, 8080, server)) == "10.201.0.1"
        assert neighbour.do(lambda: reaches("10.201.0.1", 8080, server)) == "10.201.0.1"
        assert pod.do(lambda: reaches(Uplink.HOST, 8080, server)) == "10.201.0.1"
    await cni.check(attachment)


async def test_over_ipv6(node: Node, uplink: Uplink) -> None:
    cni = node.cni(default_conflist("br0", [SUBNET, SUBNET6], nft_table=TABLE))
    pod, attachment = publishing(node, WEB)
    await cni.add(attachment)
    with pod.do(lambda: listen("::", 80)) as server:
        assert uplink.outside.do(lambda: reaches(Uplink.HOST6, 8080, server)) == Uplink.OUTSIDE6
        assert reaches(Uplink.HOST6, 8080, server) == Uplink.HOST6
        assert pod.do(lambda: reaches(Uplink.HOST6, 8080, server)) == "fd00:c9::1"


async def test_only_at_the_host_ip_that_is_given(node: Node, uplink: Uplink) -> None:
    cni = node.cni()
    pod, attachment = publishing(node, {**WEB, "hostIP": Uplink.HOST})
    neighbour, other = node.pod()
    await cni.add(attachment)
    await cni.add(other)
    with pod.do(lambda: listen("0.0.0.0", 80)) as server:
        assert uplink.outside.do(lambda: reaches(Uplink.HOST, 8080, server)) == Uplink.OUTSIDE
        assert reaches("127.0.0.1", 8080, server, timeout=0.2) == ""
        assert neighbour.do(lambda: reaches("10.201.0.1", 8080, server, timeout=0.2)) == ""
    assert Path("/proc/sys/net/ipv4/conf/br0/route_localnet").read_text().strip() == "0"


async def test_at_localhost_through_a_bridge_that_was_made_again(node: Node) -> None:
    bridge_nf6("0")
    cni = dual(node)
    pod, attachment = publishing(node, WEB)
    await cni.add(attachment)
    output("ip", "link", "del", "br0")
    await cni.add(node.pod()[1])
    with pod.do(lambda: listen("::", 80)) as server:
        assert reaches("127.0.0.1", 8080, server) == "::ffff:10.201.0.1"
        assert reaches("::1", 8080, server) == "fd00:c9::1"


async def test_at_localhost_only(node: Node, uplink: Uplink) -> None:
    cni = node.cni()
    pod, attachment = publishing(node, {**WEB, "hostIP": "127.0.0.1"})
    await cni.add(attachment)
    with pod.do(lambda: listen("0.0.0.0", 80)) as server:
        assert reaches("127.0.0.1", 8080, server) == "10.201.0.1"
        assert uplink.outside.do(lambda: reaches(Uplink.HOST, 8080, server, timeout=0.2)) == ""


def bridge_nf6(value: str) -> None:
    """Whether IPv6 packets between ports of a bridge pass nftables, where the kernel can do that."""
    setting = Path("/proc/sys/net/bridge/bridge-nf-call-ip6tables")
    if setting.exists():
        setting.write_text(value)
    elif value == "1":
        pytest.skip("the kernel has no br_netfilter")


def dual(node: Node) -> Cni:
    return node.cni(default_conflist("br0", [SUBNET, SUBNET6], nft_table=TABLE))


@pytest.mark.parametrize("mapping", [WEB, {**WEB, "hostIP": "::1"}, {**WEB, "hostIP": "::"}])
async def test_at_localhost_over_ipv6(node: Node, mapping: dict[str, Any], uplink: Uplink) -> None:
    bridge_nf6("0")
    cni = dual(node)
    pod, attachment = publishing(node, mapping)
    await cni.add(attachment)
    await cni.check(attachment)
    with pod.do(lambda: listen("::", 80)) as server:
        assert reaches("::1", 8080, server) == "fd00:c9::1"
        everywhere = mapping.get("hostIP") != "::1"
        assert bool(uplink.outside.do(lambda: reaches(Uplink.HOST6, 8080, server, timeout=0.2))) == everywhere
    await cni.delete(attachment)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("::1", 8080), 2)


async def test_at_localhost_over_ipv6_by_udp(node: Node) -> None:
    bridge_nf6("0")
    pod, attachment = publishing(node, {**WEB, "protocol": "udp"})
    await dual(node).add(attachment)
    with (
        pod.do(lambda: socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)) as server,
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as client,
    ):
        server.bind(("::", 80))
        for each in (server, client):
            each.settimeout(2)
        client.sendto(b"question", ("::1", 8080))
        question, asker = server.recvfrom(100)
        server.sendto(question + b" answered", asker)
        answer, replier = client.recvfrom(100)
    assert (answer, replier[:2]) == (b"question answered", ("::1", 8080))


async def test_a_port_at_localhost_over_ipv6_that_cannot_answer_is_refused_at_once(node: Node) -> None:
    bridge_nf6("1")
    cni = dual(node)
    pod, attachment = publishing(node, WEB)
    await cni.add(attachment)
    with pod.do(lambda: listen("::", 80)) as server:
        assert reaches("127.0.0.1", 8080, server) == "::ffff:10.201.0.1"
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("::1", 8080), 2)
    _, asking = publishing(node, {**WEB, "hostIP": "::1", "hostPort": 8081})
    with pytest.raises(CniError, match=r"hostIP ::1 of port 8081 .*bridge-nf-call-ip6tables=0"):
        await cni.add(asking)


async def test_a_pod_without_the_family_of_the_host_ip_has_no_such_port(node: Node) -> None:
    bridge_nf6("0")
    cni = node.cni()
    pod, attachment = publishing(node, {**WEB, "hostIP": "::1"})
    await cni.add(attachment)
    with pod.do(lambda: listen("0.0.0.0", 80)), pytest.raises(ConnectionRefusedError):
        socket.create_connection(("::1", 8080), 2)
    assert localhost_routes() == ["lo"]


async def test_a_neighbour_does_not_reach_the_hosts_localhost_over_ipv6(node: Node) -> None:
    bridge_nf6("0")
    cni = dual(node)
    _, attachment = publishing(node, WEB)
    neighbour, other = node.pod()
    await cni.add(attachment)
    result = await cni.add(other)
    to, of = (bytes.fromhex(result.interfaces[place].mac.replace(":", "")) for place in (0, 2))
    assert localhost_routes() == ["br0", "lo"]
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as server:
        server.bind(("::", 5353))
        server.settimeout(0.3)
        for source, dest in (("fd00:c9::3", "::1"), ("::1", "::1"), ("::1", "fd00:c9::1")):
            neighbour.do(lambda s=source, d=dest: send_frame6(to, of, s, d, 5353))
            with pytest.raises(TimeoutError):
                server.recv(100)
        neighbour.do(lambda: send_frame6(to, of, "fd00:c9::3", "fd00:c9::1", 5353))
        assert server.recv(100) == b"crafted", "the frames of this test must be good ones"


async def test_the_way_to_localhost_goes_with_the_network(node: Node) -> None:
    bridge_nf6("0")
    output("ip", "link", "add", "br0", "type", "bridge")
    cni = dual(node)
    _, attachment = publishing(node, WEB)
    await cni.add(attachment)
    assert localhost_routes() == ["br0", "lo"]
    await cni.delete(attachment)
    assert await cni.teardown() == []
    assert localhost_routes() == ["lo"]
    assert node.ledger.entries() == []


def localhost_routes() -> list[str]:
    lines = output("ip", "-6", "route", "show", "table", "local").splitlines()
    return sorted(line.split()[3] for line in lines if line.startswith("local ::1 dev "))


async def test_traffic_through_the_host_to_the_same_port_elsewhere_is_left_alone(node: Node, uplink: Uplink) -> None:
    """CVE-2025-67499, CVE-2019-9946: a pod must not catch what is meant for another machine."""
    cni = node.cni()
    pod, attachment = publishing(node, WEB)
    neighbour, other = node.pod()
    await cni.add(attachment)
    await cni.add(other)
    with pod.do(lambda: listen("0.0.0.0", 80)), uplink.outside.do(lambda: listen(Uplink.OUTSIDE, 8080)) as elsewhere:
        assert neighbour.do(lambda: reaches(Uplink.OUTSIDE, 8080, elsewhere)) == Uplink.HOST
        assert reaches(Uplink.OUTSIDE, 8080, elsewhere) == Uplink.HOST
    with neighbour.do(lambda: listen("0.0.0.0", 8080)) as elsewhere:
        assert uplink.outside.do(lambda: reaches("10.201.0.3", 8080, elsewhere)) == Uplink.OUTSIDE


async def test_the_hosts_own_ports_stay_its_own(node: Node, uplink: Uplink) -> None:
    cni = node.cni()
    _, attachment = publishing(node, WEB)
    await cni.add(attachment)
    with listen("0.0.0.0", 9090) as server:
        assert uplink.outside.do(lambda: reaches(Uplink.HOST, 9090, server)) == Uplink.OUTSIDE
        assert reaches("127.0.0.1", 9090, server) == "127.0.0.1"


async def test_a_neighbour_does_not_reach_the_hosts_localhost(node: Node) -> None:
    """CVE-2020-8558: route_localnet is on for the bridge, so only the guard stands between."""
    cni = node.cni()
    _, attachment = publishing(node, WEB)
    neighbour, other = node.pod()
    await cni.add(attachment)
    result = await cni.add(other)
    assert Path("/proc/sys/net/ipv4/conf/br0/route_localnet").read_text().strip() == "1"
    host_mac = bytes.fromhex(result.interfaces[0].mac.replace(":", ""))
    pod_mac = bytes.fromhex(result.interfaces[2].mac.replace(":", ""))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as secret:
        secret.bind(("127.0.0.1", 5353))
        secret.settimeout(0.3)
        for source, dest, arrives in (
            ("10.201.0.3", "127.0.0.1", False),
            ("127.0.0.1", "127.0.0.1", False),
        ):
            neighbour.do(lambda s=source, d=dest: send_frame(host_mac, pod_mac, s, d, 5353))
            with pytest.raises(TimeoutError) if not arrives else contextlib.nullcontext():
                secret.recv(100)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as public:
        public.bind(("10.201.0.1", 5354))
        public.settimeout(2)
        neighbour.do(lambda: send_frame(host_mac, pod_mac, "10.201.0.3", "10.201.0.1", 5354))
        assert public.recv(100) == b"crafted", "the frames of this test must be good ones"


def send_frame6(dst_mac: bytes, src_mac: bytes, source: str, destination: str, port: int) -> None:
    """The same over IPv6."""
    payload = b"crafted"
    length = 8 + len(payload)
    addresses = socket.inet_pton(socket.AF_INET6, source) + socket.inet_pton(socket.AF_INET6, destination)
    summed = addresses + struct.pack("!II", length, socket.IPPROTO_UDP)
    summed += struct.pack("!HHHH", 40000, port, length, 0) + payload + b"\0" * (length % 2)
    total = sum(struct.unpack(f"!{len(summed) // 2}H", summed))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    udp = struct.pack("!HHHH", 40000, port, length, ~total & 0xFFFF) + payload
    header = struct.pack("!IHBB", 6 << 28, length, socket.IPPROTO_UDP, 64) + addresses
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
        raw.bind(("eth0", 0))
        raw.send(dst_mac + src_mac + b"\x86\xdd" + header + udp)


def send_frame(dst_mac: bytes, src_mac: bytes, source: str, destination: str, port: int) -> None:
    """A UDP packet on the wire, whatever the kernel's routing would think of its addresses."""
    payload = b"crafted"
    udp = struct.pack("!HHHH", 40000, port, 8 + len(payload), 0) + payload
    addresses = socket.inet_aton(source) + socket.inet_aton(destination)
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 1, 0, 64, socket.IPPROTO_UDP, 0) + addresses
    total = sum(struct.unpack("!10H", header))
    checksum = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    packet = header[:10] + struct.pack("!H", checksum) + header[12:] + udp
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
        raw.bind(("eth0", 0))
        raw.send(dst_mac + src_mac + b"\x08\x00" + packet)


async def test_a_port_that_another_pod_has_is_refused_with_its_name(node: Node) -> None:
    cni = node.cni()
    first, one = publishing(node, WEB)
    _, two = publishing(node, WEB, {"hostPort": 8081, "containerPort": 81})
    await cni.add(one)
    with pytest.raises(CniError, match=rf"ports4 tcp \. 8080 is taken by 'br0 {one.container_id} eth0'"):
        await cni.add(two)
    assert {entry.kind for entry in node.ledger.entries(holder=two.container_id)} <= {"link"}
    assert [entry.key for entry in node.ledger.entries(kind="nft", holder=one.container_id)] == [
        f"inet {TABLE} ports4 tcp . 8080"
    ]
    with first.do(lambda: listen("0.0.0.0", 80)) as server:
        assert reaches("127.0.0.1", 8080, server) == "10.201.0.1"
    await cni.delete(one)
    await cni.add(two)


async def test_delete_closes_the_port_and_leaves_those_of_others(node: Node) -> None:
    cni = node.cni()
    _, one = publishing(node, WEB)
    second, two = publishing(node, {"hostPort": 8081, "containerPort": 80})
    await cni.add(one)
    await cni.add(two)
    await cni.delete(one)
    listed = output("nft", "list", "map", "inet", TABLE, "ports4")
    assert "8080" not in listed and "8081" in listed
    with second.do(lambda: listen("0.0.0.0", 80)) as server:
        assert reaches("127.0.0.1", 8081, server) == "10.201.0.1"


async def test_udp_flows_follow_the_mapping(node: Node, uplink: Uplink) -> None:
    """A client that keeps its port keeps its tracked flow, which must not outlive the mapping."""
    cni = node.cni()
    dns = {"hostPort": 5300, "containerPort": 53, "protocol": "udp"}
    client = uplink.outside.do(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    client.settimeout(2)
    # Before there is a mapping, the flow is tracked as one to the host itself.
    output("nft", "add table inet probe; add chain inet probe c { type filter hook prerouting priority 0; }")
    output("nft", "add rule inet probe c ct state new counter")
    with client:
        client.sendto(b"early", (Uplink.HOST, 5300))
        for number in (1, 2):
            pod, attachment = publishing(node, dns)
            await cni.add(attachment)
            with pod.do(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as server:
                server.bind(("0.0.0.0", 53))
                server.settimeout(2)
                client.sendto(b"query %d" % number, (Uplink.HOST, 5300))
                query, peer = await asyncio.to_thread(server.recvfrom, 100)
                assert (query, peer[0]) == (b"query %d" % number, Uplink.OUTSIDE)
                server.sendto(b"answer", peer)
                assert client.recv(100) == b"answer"
            await cni.delete(attachment)


async def test_check_and_gc_know_the_mappings(node: Node) -> None:
    cni = node.cni()
    _, one = publishing(node, WEB)
    _, two = publishing(node, {"hostPort": 8081, "containerPort": 80})
    await cni.add(one)
    await cni.add(two)
    output("nft", "delete", "element", "inet", TABLE, "ports4", "{ tcp . 8080 }")
    with pytest.raises(CniError, match=r"mapping of tcp \. 8080 is missing"):
        await cni.check(one)
    output("nft", "add", "element", "inet", TABLE, "ports4", '{ tcp . 9 comment "br0 stale eth0" : 10.201.0.9 . 9 }')
    output("nft", "add", "element", "inet", TABLE, "ports4", '{ tcp . 10 comment "else x eth0" : 10.201.0.9 . 9 }')
    await cni.gc([two])
    listed = output("nft", "list", "map", "inet", TABLE, "ports4")
    assert "8081" in listed and "tcp . 9 " not in listed and "tcp . 10 " in listed


async def test_bad_mappings_are_refused_and_nothing_stays(node: Node) -> None:
    cni = node.cni()
    for mapping, reason in (
        ({"hostPort": 0, "containerPort": 80}, "hostPort 0"),
        ({"hostPort": 70000, "containerPort": 80}, "hostPort 70000"),
        ({"hostPort": 80, "containerPort": "http"}, "containerPort 'http'"),
        ({**WEB, "protocol": "icmp"}, "protocol 'icmp'"),
        ({**WEB, "hostIP": "1.2.3.4 }; flush ruleset; #"}, "hostIP"),
    ):
        _, attachment = publishing(node, mapping)
        with pytest.raises(CniError, match=reason):
            await cni.add(attachment)
        assert {entry.kind for entry in node.ledger.entries(holder=attachment.container_id)} <= {"link"}
    assert {path.name for path in node.leases.iterdir()} == {"lock", "last_reserved_ip.0"}


async def test_options_that_only_the_reference_plugin_has_are_named(node: Node) -> None:
    conflist = default_conflist("br0", SUBNET, nft_table=TABLE)
    conflist["plugins"][1]["conditionsV4"] = ["-d", "192.0.2.0/24"]
    cni = Cni(node.conf_dir, [node.bin_dir], node.root / "cache", node.ledger, default_conflist=conflist)
    _, attachment = publishing(node, WEB)
    with pytest.raises(UnsupportedField, match="conditionsV4"):
        await cni.add(attachment)
    await cni.close()
