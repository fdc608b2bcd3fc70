"""What the kernel knows about interfaces, addresses and routes: answers decoded by pyroute2, for the slow paths."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from typing import Any, Final

from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from cni.rtnl import addresses, links
from cni.rtnl.encoding import encode
from cni.rtnl.socket import Netlink, Request

ENODEV: Final = 19


@dataclass(frozen=True, slots=True)
class Link:
    """An interface: `master` is the index of its bridge, `peer` that of the other end of a veth; 0 for none.

    `filters_vlans` is said of bridges, `isolated` and `locked` of their ports.
    """

    index: int
    name: str
    mac: str
    mtu: int
    kind: str
    flags: int
    master: int
    peer: int
    filters_vlans: bool = False
    isolated: bool = False
    locked: bool = False

    @property
    def is_up(self) -> bool:
        """Whether it is up (IFF_UP), with or without a carrier."""
        return bool(self.flags & links.IFF_UP)


def find_link(netlink: Netlink, name: str) -> Link | None:
    """An interface by name; None when there is none."""
    try:
        answer = _decode(ifinfmsg, netlink.ask(links.get_link(name))[0])
    except OSError as error:
        if error.errno == ENODEV:
            return None
        raise
    info = answer.get_attr("IFLA_LINKINFO")
    own, as_port = (info.get_attr(key) if info else None for key in ("IFLA_INFO_DATA", "IFLA_INFO_SLAVE_DATA"))
    return Link(
        answer["index"],
        answer.get_attr("IFLA_IFNAME"),
        answer.get_attr("IFLA_ADDRESS") or "",
        answer.get_attr("IFLA_MTU") or 0,
        (info.get_attr("IFLA_INFO_KIND") if info is not None else None) or "",
        answer["flags"],
        answer.get_attr("IFLA_MASTER") or 0,
        answer.get_attr("IFLA_LINK") or 0,
        bool(_attribute(own, "IFLA_BR_VLAN_FILTERING")),
        bool(_attribute(as_port, "IFLA_BRPORT_ISOLATED")),
        bool(_attribute(as_port, "IFLA_BRPORT_LOCKED")),
    )


def _attribute(message: Any, key: str) -> Any:
    # The data of a kind that pyroute2 does not know are plain bytes.
    return message.get_attr(key) if hasattr(message, "get_attr") else None


def list_addresses(netlink: Netlink, index: int, name: str) -> list[IPv4Interface | IPv6Interface]:
    """The addresses of an interface, link-local ones included."""
    return list(address_flags(netlink, index, name))


def address_flags(netlink: Netlink, index: int, name: str) -> dict[IPv4Interface | IPv6Interface, int]:
    """The same, with their IFA_F_* flags."""
    found: dict[IPv4Interface | IPv6Interface, int] = {}
    for data in netlink.ask(addresses.get_addresses(index, name)):
        answer = _decode(ifaddrmsg, data)
        text = answer.get_attr("IFA_LOCAL") or answer.get_attr("IFA_ADDRESS")
        if answer["index"] == index and text:
            address = ipaddress.ip_interface(f"{text}/{answer['prefixlen']}")
            found[address] = answer.get_attr("IFA_FLAGS") or answer["flags"]
    return found


@dataclass(frozen=True, slots=True)
class KernelRoute:
    """A route of the main table, or another."""

    dst: IPv4Network | IPv6Network
    gateway: IPv4Address | IPv6Address | None
    index: int
    table: int


def list_routes(netlink: Netlink, version: int) -> list[KernelRoute]:
    """All routes of a family."""
    found: list[KernelRoute] = []
    for data in netlink.ask(addresses.get_routes(version)):
        answer = _decode(rtmsg, data)
        text = answer.get_attr("RTA_DST") or ("0.0.0.0" if version == 4 else "::")
        gateway = answer.get_attr("RTA_GATEWAY")
        found.append(
            KernelRoute(
                ipaddress.ip_network(f"{text}/{answer['dst_len']}", strict=False),
                ipaddress.ip_address(gateway) if gateway else None,
                answer.get_attr("RTA_OIF") or 0,
                answer.get_attr("RTA_TABLE") or answer["table"],
            )
        )
    return found


def route_interface(netlink: Netlink, address: IPv4Address | IPv6Address) -> str | None:
    """The name of the interface through which packets to `address` leave, or None when there is no route."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    data = encode(
        rtmsg(),
        addresses.RTM_GETROUTE,
        0,
        [("RTA_DST", str(address))],
        family=family,
        dst_len=address.max_prefixlen,
    )
    try:
        answer = _decode(rtmsg, netlink.ask(Request(f"look up the route to {address}", data))[0])
    except OSError:
        return None
    index = answer.get_attr("RTA_OIF")
    return socket.if_indextoname(index) if index else None


def _decode(kind: Any, data: bytes) -> Any:
    message = kind(data)
    message.decode()
    return message
