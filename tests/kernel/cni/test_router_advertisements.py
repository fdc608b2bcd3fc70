"""CVE-2020-10749: a pod that claims to be a router must convince neither the host nor its neighbours."""

from __future__ import annotations

import asyncio
import socket
import struct
from pathlib import Path

from cni.podnetns import pod_sysctls
from runtime.linux.namespaces import set_sysctls
from tests.kernel.cni.conftest import Node
from tests.support.netns import Netns, output

ALL_NODES_MAC = bytes.fromhex("333300000001")
PREFIX = "2001:db8:bad::"


def advertise(mac: bytes) -> None:
    """A router advertisement with a default route and a prefix for addresses (RFC 4861, section 4.2)."""
    source = socket.inet_pton(socket.AF_INET6, "fe80::bad")
    destination = socket.inet_pton(socket.AF_INET6, "ff02::1")
    option = struct.pack("!BBBBIII", 3, 4, 64, 0xC0, 3600, 3600, 0) + socket.inet_pton(socket.AF_INET6, PREFIX)
    body = struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0) + option
    pseudo = source + destination + struct.pack("!II", len(body), socket.IPPROTO_ICMPV6) + body
    total = sum(struct.unpack(f"!{len(pseudo) // 2}H", pseudo))
    total = (total & 0xFFFF) + (total >> 16)
    checksum = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    body = body[:2] + struct.pack("!H", checksum) + body[4:]
    header = struct.pack("!IHBB", 6 << 28, len(body), socket.IPPROTO_ICMPV6, 255) + source + destination
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
        raw.bind(("eth0", 0))
        raw.send(ALL_NODES_MAC + mac + b"\x86\xdd" + header + body)


def routers_known(namespace: Netns | None) -> str:
    return (namespace.run if namespace else output)("ip", "-6", "route", "show", "default")


async def test_nobody_believes_a_pod(node: Node) -> None:
    cni = node.cni()
    (rogue, one), (neighbour, two), (gullible, three) = node.pod(), node.pod(), node.pod()
    neighbour.do(lambda: set_sysctls(pod_sysctls().items()))  # as a runtime does when it makes the namespace
    result = await cni.add(one)
    await cni.add(two)
    await cni.add(three)
    mac = bytes.fromhex(result.interfaces[2].mac.replace(":", ""))
    for _ in range(50):
        rogue.do(lambda: advertise(mac))
        if "fe80::bad" in routers_known(gullible):
            break
        await asyncio.sleep(0.05)
    assert "fe80::bad" in routers_known(gullible), "the advertisement of this test must be a good one"
    assert routers_known(neighbour) == "" and PREFIX not in neighbour.run("ip", "-6", "address")
    assert routers_known(None) == "" and PREFIX not in output("ip", "-6", "address")
    assert Path("/proc/sys/net/ipv6/conf/br0/accept_ra").read_text().strip() == "0"
