"""Requests about addresses and routes (linux/if_addr.h, linux/rtnetlink.h)."""

from __future__ import annotations

import functools
import socket
from ipaddress import IPv4Interface, IPv6Interface
from typing import Any, Final

from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from cni.result import Route
from cni.rtnl.encoding import INDEX_MARK, NEW, NLM_F_DUMP, Template, encode, nested, u32
from cni.rtnl.socket import Request

RTM_NEWADDR: Final = 20
RTM_DELADDR: Final = 21
RTM_GETADDR: Final = 22
RTM_NEWROUTE: Final = 24
RTM_DELROUTE: Final = 25
RTM_GETROUTE: Final = 26
IFA_F_NODAD: Final = 0x2
IFA_F_DADFAILED: Final = 0x8
IFA_F_TENTATIVE: Final = 0x40
RT_TABLE_UNSPEC: Final = 0
RT_TABLE_MAIN: Final = 254
RT_TABLE_LOCAL: Final = 255
RTPROT_BOOT: Final = 3
RT_SCOPE_UNIVERSE: Final = 0
RT_SCOPE_LINK: Final = 253
RTN_UNICAST: Final = 1
RTN_LOCAL: Final = 2


def add_address(index: int, name: str, address: IPv4Interface | IPv6Interface, *, dad: bool = False) -> Request:
    """Give an interface an address; usable at once, unless with `dad` IPv6 is to look for a second who has it."""
    data = _address_template(address.version, address.network.prefixlen, dad).fill(
        index=u32(index), **_address_bytes(address)
    )
    return Request(f"add address {address} to {name}", data)


def _address_bytes(address: IPv4Interface | IPv6Interface) -> dict[str, bytes]:
    filled = {"local": address.ip.packed, "address": address.ip.packed}
    return filled | ({"broadcast": address.network.broadcast_address.packed} if address.version == 4 else {})


@functools.lru_cache(maxsize=64)
def _address_template(version: int, prefix: int, dad: bool) -> Template:
    length = 4 if version == 4 else 16
    marks = {name: bytes([0xE0 + place]) * length for place, name in enumerate(("local", "address", "broadcast"))}
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    texts = {name: socket.inet_ntop(family, mark) for name, mark in marks.items()}
    attributes: list[tuple[str, Any]] = [("IFA_LOCAL", texts["local"]), ("IFA_ADDRESS", texts["address"])]
    if version == 4:
        attributes.append(("IFA_BROADCAST", texts["broadcast"]))
    else:
        attributes.append(("IFA_FLAGS", 0 if dad else IFA_F_NODAD))
        del marks["broadcast"]
    data = encode(ifaddrmsg(), RTM_NEWADDR, NEW, attributes, family=family, prefixlen=prefix, index=INDEX_MARK)
    return Template(data, index=u32(INDEX_MARK), **marks)


def delete_address(index: int, name: str, address: IPv4Interface | IPv6Interface) -> Request:
    """Take an address away from an interface."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    attributes = [("IFA_LOCAL", str(address.ip)), ("IFA_ADDRESS", str(address.ip))]
    fields = {"family": family, "prefixlen": address.network.prefixlen, "index": index}
    return Request(f"remove address {address} from {name}", encode(ifaddrmsg(), RTM_DELADDR, 0, attributes, **fields))


def get_addresses(index: int, name: str) -> Request:
    """Ask for the addresses of an interface; the kernel filters only when it checks requests strictly."""
    data = encode(ifaddrmsg(), RTM_GETADDR, NLM_F_DUMP, [], index=index)
    return Request(f"list addresses of {name}", data)


def add_route(index: int, name: str, route: Route) -> Request:
    """A route through an interface, with the gateway of the route or directly."""
    return Request(f"add route {route.dst} via {route.gw or name}", _route(index, route))


@functools.lru_cache(maxsize=256)
def _route(index: int, route: Route) -> bytes:
    # Without a gateway the destination is on the link itself; IPv6 knows no scopes of routes.
    near = route.gw is None and route.dst.version == 4
    table = RT_TABLE_MAIN if route.table is None else route.table
    attributes: list[tuple[str, Any]] = [("RTA_OIF", index), ("RTA_TABLE", table)]
    if route.dst.prefixlen:
        attributes.append(("RTA_DST", str(route.dst.network_address)))
    if route.gw is not None:
        attributes.append(("RTA_GATEWAY", str(route.gw)))
    if route.priority:
        attributes.append(("RTA_PRIORITY", route.priority))
    metrics = [(name, value) for name, value in (("RTAX_MTU", route.mtu), ("RTAX_ADVMSS", route.advmss)) if value]
    if metrics:
        attributes.append(("RTA_METRICS", nested(*metrics)))
    return encode(
        rtmsg(),
        RTM_NEWROUTE,
        NEW,
        attributes,
        family=socket.AF_INET if route.dst.version == 4 else socket.AF_INET6,
        dst_len=route.dst.prefixlen,
        table=table if table < 256 else RT_TABLE_UNSPEC,
        proto=RTPROT_BOOT,
        scope=route.scope if route.scope is not None else RT_SCOPE_LINK if near else RT_SCOPE_UNIVERSE,
        type=RTN_UNICAST,
    )


def add_localhost_route(index: int, name: str) -> Request:
    """A route of the interface's own to ::1, as an address of this host."""
    return Request(f"add the local route to ::1 of {name}", _localhost_route(RTM_NEWROUTE, NEW, index))


def delete_localhost_route(index: int, name: str) -> Request:
    """Take it away."""
    return Request(f"remove the local route to ::1 of {name}", _localhost_route(RTM_DELROUTE, 0, index))


def _localhost_route(kind: int, nlm_flags: int, index: int) -> bytes:
    attributes = [("RTA_OIF", index), ("RTA_TABLE", RT_TABLE_LOCAL), ("RTA_DST", "::1")]
    fields = {"dst_len": 128, "table": RT_TABLE_LOCAL, "proto": RTPROT_BOOT, "type": RTN_LOCAL}
    return encode(rtmsg(), kind, nlm_flags, attributes, family=socket.AF_INET6, **fields)


def get_routes(version: int) -> Request:
    """Ask for all routes of a family."""
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    return Request(f"list IPv{version} routes", encode(rtmsg(), RTM_GETROUTE, NLM_F_DUMP, [], family=family))
