"""Bridges of pod networks: made on first use, kept as their network wants them, and remembered by index.

A network's bridge is made by the first pod and used by all. Looking it up and checking it for each pod would cost as
much as connecting the pod, so it is remembered until the kernel tells of an address that it has lost.
"""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Interface, IPv6Interface
from typing import Final

from cni import sysctl
from cni.errors import CniError, InvalidConfig
from cni.journal import Journal
from cni.rtnl import addresses, links, vlans
from cni.rtnl.queries import Link, find_link, list_addresses
from cni.rtnl.socket import Netlink, Request
from cni.rtnl.watch import AddressWatch
from runtime.linux.files import boot_id

IFNAME_LIMIT: Final = 15  # IFNAMSIZ of linux/if.h, less the closing NUL
FORWARDING: Final = {4: "net/ipv4/ip_forward", 6: "net/ipv6/conf/all/forwarding"}


@dataclass(frozen=True, slots=True)
class BridgeSpec:
    """What a network wants of its bridge; an MTU of 0 is the kernel's default.

    An IPv4 address on the bridge that is not the gateway's is an error, is replaced (`force_address`), or stays beside
    it if it is of another subnet (`keep_addresses`). With `vlan` the interface <bridge>.<vlan> has the address.
    """

    name: str
    network: str
    mtu: int = 0
    promiscuous: bool = False
    force_address: bool = False
    keep_addresses: bool = False
    filter_vlans: bool = False
    vlan: int = 0


@dataclass(slots=True)
class Bridge:
    """A bridge, or the host's interface in a VLAN of one, as it was found or made."""

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
        self._new = False

    def close(self) -> None:
        """Close the socket for news."""
        self._watch.close()

    def ensure(
        self, spec: BridgeSpec, gateways: list[IPv4Interface | IPv6Interface], journal: Journal
    ) -> tuple[Bridge, Bridge]:
        """The bridge and what has the gateways' addresses, which is the bridge again unless it is in a VLAN.

        Both are made where they are missing, up and forwarding.

        Raises InvalidConfig when an interface of that name is no bridge or has other addresses, OSError.
        """
        with self._lock:
            self._forget_changed()
            bridge = self._known.get(spec.name)
            if bridge is None or bridge.spec != spec:
                bridge = self._known[spec.name] = self._make(spec, journal)
            holder = self._in_vlan(bridge, journal) if spec.vlan and gateways else bridge
            for gateway in gateways:
                if gateway not in holder.gateways:
                    self._add_gateway(holder, gateway)
                forward(gateway.version, spec.network, journal)
            return bridge, holder

    def take_new(self) -> bool:
        """Whether a bridge was made since the last call: ports that it had under its name have to become its own."""
        with self._lock:
            new, self._new = self._new, False
            return new

    def forget(self, name: str) -> None:
        """Look at a bridge anew the next time."""
        with self._lock:
            for known in [key for key in self._known if key == name or key.startswith(f"{name}.")]:
                del self._known[known]

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
                self._new = True
                self._netlink.do(links.create_bridge(spec.name, _bridge_mac(spec.name), mtu=spec.mtu))
            except OSError as error:
                if error.errno != errno.EEXIST:  # by another process, in the meantime
                    raise
            # With its link-local address the bridge asks for pods' neighbours; it must not wait a second for that.
            sysctl.write_if_there(_ipv6(spec.name, "accept_dad"), "0")
            link = find_link(self._netlink, spec.name)
        if link is None or link.kind != "bridge":
            raise InvalidConfig(f"interface {spec.name} exists and is not a bridge", 'choose another name in "bridge"')
        # Routes of the host are not for pods to advertise (CVE-2020-10749).
        sysctl.write_if_there(_ipv6(spec.name, "accept_ra"), "0")
        if spec.filter_vlans and not link.filters_vlans:
            self._do_if_built(vlans.filter_vlans(link.index, spec.name), "CONFIG_BRIDGE_VLAN_FILTERING")
        self._set_flags(link, spec)
        return Bridge(spec, link.index, link.mac, set(list_addresses(self._netlink, link.index, link.name)))

    def _in_vlan(self, bridge: Bridge, journal: Journal) -> Bridge:
        """The host's interface in the VLAN of the bridge's network, <bridge>.<vlan>."""
        spec = replace(bridge.spec, name=f"{bridge.spec.name}.{bridge.spec.vlan}", promiscuous=False)
        known = self._known.get(spec.name)
        if known is not None and known.spec == spec:
            return known
        if len(spec.name) > IFNAME_LIMIT:
            raise InvalidConfig(
                f"bridge: no interface can be called {spec.name}",
                f'choose a name of at most {IFNAME_LIMIT - 5} characters in "bridge"',
            )
        if (link := find_link(self._netlink, spec.name)) is None:
            journal.shared("link", spec.name, spec.network)
            request = vlans.create_vlan_link(spec.name, bridge.index, spec.vlan, bridge.mac)
            self._do_if_built(request, "CONFIG_VLAN_8021Q, module 8021q")
            sysctl.write_if_there(_ipv6(spec.name, "accept_dad"), "0")
            link = find_link(self._netlink, spec.name)
        # The reference plugin has one end of a veth pair there, whose other end is a port in that VLAN.
        if link is None or link.kind not in ("vlan", "veth"):
            raise InvalidConfig(f"interface {spec.name} exists and is of no VLAN", 'choose another name in "bridge"')
        sysctl.write_if_there(_ipv6(spec.name, "accept_ra"), "0")
        if link.kind == "vlan":
            self._netlink.do(vlans.join_vlan(bridge.index, bridge.spec.name, spec.vlan))
        self._set_flags(link, spec)
        found = set(list_addresses(self._netlink, link.index, link.name))
        self._known[spec.name] = Bridge(spec, link.index, link.mac, found)
        return self._known[spec.name]

    def _do_if_built(self, request: Request, option: str) -> None:
        try:
            self._netlink.do(request)
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:
                raise
            raise CniError(
                f"bridge: vlan: {request.what}: this kernel cannot", f"it is built without {option}"
            ) from error

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


def _ipv6(name: str, setting: str) -> str:
    return f"net/ipv6/conf/{name}/{setting}"


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


def _bridge_mac(name: str) -> str:
    """The same for a bridge that is made again: pods know it as their gateway's. Another one on every machine."""
    here = os.stat("/proc/self/ns/net").st_ino
    raw = bytearray(hashlib.sha256(f"{boot_id()}/{here}/{name}".encode()).digest()[:6])
    # Locally administered, unicast (IEEE 802, two lowest bits of the first byte).
    raw[0] = raw[0] & 0xFC | 0x02
    return raw.hex(":")
