"""Bridges of pod networks: made on first use, kept as their network wants them, and remembered by index.

A network's bridge is made by the first pod and used by all. Looking it up and checking it for each pod would cost as
much as connecting the pod, so it is remembered until the kernel tells of an address that it has lost.
"""

from __future__ import annotations

import errno
import os
import threading
from dataclasses import dataclass, field
from ipaddress import IPv4Interface, IPv6Interface
from typing import Final

from cni import sysctl
from cni.errors import CniError, InvalidConfig
from cni.journal import Journal
from cni.rtnl import addresses, links
from cni.rtnl.queries import Link, find_link, list_addresses
from cni.rtnl.socket import Netlink
from cni.rtnl.watch import AddressWatch

FORWARDING: Final = {4: "net/ipv4/ip_forward", 6: "net/ipv6/conf/all/forwarding"}


@dataclass(frozen=True, slots=True)
class BridgeSpec:
    """What a network wants of its bridge; an MTU of 0 is the kernel's default.

    An IPv4 address on the bridge that is not the gateway's is an error, is replaced (`force_address`), or stays beside
    it if it is of another subnet (`keep_addresses`).
    """

    name: str
    network: str
    mtu: int = 0
    promiscuous: bool = False
    force_address: bool = False
    keep_addresses: bool = False


@dataclass(slots=True)
class Bridge:
    """A bridge as it was found or made."""

    spec: BridgeSpec
    index: int
    mac: str
    gateways: set[IPv4Interface | IPv6Interface] = field(default_factory=set)


class Bridges:
    """The bridges that this process knows."""

    def __init__(self, netlink: Netlink) -> None:
        self._netlink = netlink
        self._watch = AddressWatch()
        self._known: dict[str, Bridge] = {}
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close the socket for news."""
        self._watch.close()

    def ensure(self, spec: BridgeSpec, gateways: list[IPv4Interface | IPv6Interface], journal: Journal) -> Bridge:
        """The bridge, made and given the gateways' addresses where they are missing, up and forwarding.

        Raises InvalidConfig when an interface of that name is no bridge or has other addresses, OSError.
        """
        with self._lock:
            self._forget_changed()
            bridge = self._known.get(spec.name)
            if bridge is None or bridge.spec != spec:
                bridge = self._known[spec.name] = self._make(spec, journal)
            for gateway in gateways:
                if gateway not in bridge.gateways:
                    self._add_gateway(bridge, gateway)
                forward(gateway.version, spec.network, journal)
            return bridge

    def forget(self, name: str) -> None:
        """Look at a bridge anew the next time."""
        with self._lock:
            self._known.pop(name, None)

    def _forget_changed(self) -> None:
        lost = self._watch.lost()
        if lost is None:
            self._known.clear()
        elif lost:
            self._known = {name: bridge for name, bridge in self._known.items() if bridge.index not in lost}

    def _make(self, spec: BridgeSpec, journal: Journal) -> Bridge:
        link = find_link(self._netlink, spec.name)
        if link is None:
            journal.shared("link", spec.name, spec.network)
            try:
                self._netlink.do(links.create_bridge(spec.name, _random_mac(), mtu=spec.mtu))
            except OSError as error:
                if error.errno != errno.EEXIST:  # by another process, in the meantime
                    raise
            # With its link-local address the bridge asks for pods' neighbours; it must not wait a second for that.
            sysctl.write_if_there(f"net/ipv6/conf/{spec.name}/accept_dad", "0")
            link = find_link(self._netlink, spec.name)
        if link is None or link.kind != "bridge":
            raise InvalidConfig(f"interface {spec.name} exists and is not a bridge", 'choose another name in "bridge"')
        # Routes of the host are not for pods to advertise (CVE-2020-10749).
        sysctl.write_if_there(f"net/ipv6/conf/{spec.name}/accept_ra", "0")
        self._set_flags(link, spec)
        return Bridge(spec, link.index, link.mac, set(list_addresses(self._netlink, link.index, link.name)))

    def _set_flags(self, link: Link, spec: BridgeSpec) -> None:
        wanted = links.IFF_UP | (links.IFF_PROMISC if spec.promiscuous else 0)
        if link.flags & wanted != wanted:
            self._netlink.do(links.set_flags(link.index, spec.name, wanted))

    def _add_gateway(self, bridge: Bridge, gateway: IPv4Interface | IPv6Interface) -> None:
        for other in [other for other in bridge.gateways if _excludes(other, gateway, bridge.spec)]:
            if not bridge.spec.force_address:
                raise InvalidConfig(
                    f"bridge {bridge.spec.name} has the address {other}, which {gateway} cannot stand beside",
                    'remove it, or set "forceAddress" to have it replaced',
                )
            self._netlink.do(addresses.delete_address(bridge.index, bridge.spec.name, other))
            bridge.gateways.discard(other)
        try:
            self._netlink.do(addresses.add_address(bridge.index, bridge.spec.name, gateway))
        except OSError as error:
            if error.errno != errno.EEXIST:
                raise
        bridge.gateways.add(gateway)


def forward(version: int, network: str, journal: Journal) -> None:
    """Let the host forward packets of a family; the ledger keeps what the setting was when this changes it."""
    name = FORWARDING[version]
    value = sysctl.read(name)
    if value is None:
        raise CniError(f"this kernel has no IPv{version}", f"network {network} wants addresses of that family")
    if value == "0":
        journal.shared("sysctl", name, network, {"was": value, "now": "1"})
        sysctl.write(name, "1")


def _excludes(present: IPv4Interface | IPv6Interface, wanted: IPv4Interface | IPv6Interface, spec: BridgeSpec) -> bool:
    """Whether two addresses cannot both be a bridge's: two of IPv4, or two in one subnet."""
    if present.version != wanted.version or present.is_link_local:
        return False
    return (
        (present.version == 4 and not spec.keep_addresses)
        or present.ip in wanted.network
        or wanted.ip in present.network
    )


def _random_mac() -> str:
    # Locally administered, unicast (IEEE 802, two lowest bits of the first byte).
    raw = bytearray(os.urandom(6))
    raw[0] = raw[0] & 0xFC | 0x02
    return raw.hex(":")
