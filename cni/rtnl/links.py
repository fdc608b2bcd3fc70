"""Requests about interfaces: veth pairs, bridges and their ports (linux/if_link.h, net/bridge/br_netlink.c)."""

from __future__ import annotations

import functools
import socket
from typing import Any, Final

from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.ndmsg import ndmsg

from cni.rtnl.encoding import INDEX_MARK, NEW, NLM_F_CREATE, NLM_F_REPLACE, Template, encode, nested, u32
from cni.rtnl.socket import Request, find_attribute

RTM_NEWLINK: Final = 16
RTM_DELLINK: Final = 17
RTM_GETLINK: Final = 18
RTM_SETLINK: Final = 19
RTM_NEWNEIGH: Final = 28
NUD_NOARP: Final = 0x40
NTF_MASTER: Final = 0x04
NTF_STICKY: Final = 0x40
IFF_UP: Final = 0x1
IFF_PROMISC: Final = 0x100
IN6_ADDR_GEN_MODE_NONE: Final = 1
LOOPBACK_INDEX: Final = 1
IFLA_OPERSTATE: Final = 16
IF_OPER_UNKNOWN: Final = 0
IF_OPER_UP: Final = 6
#: Behind struct nlmsghdr and struct ifinfomsg.
_ATTRIBUTES_AT: Final = 32

#: Host ends have names of one length, so that they can be patched into a template: all of IFNAMSIZ.
HOST_NAME_LENGTH: Final = 15
_NAME_MARK: Final = b"@name-of-host-@"
_MAC_MARK: Final = bytes.fromhex("fe9d31c4a7b5")
_PEER_MAC_MARK: Final = bytes.fromhex("fe9d31c4a7b6")
_FD_MARK: Final = 0x5EED1D5A


def _link(kind: int, nlm_flags: int, attributes: list[tuple[str, Any]], **fields: int) -> bytes:
    return encode(ifinfmsg(), kind, nlm_flags, attributes, **fields)


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def _colons(raw: bytes) -> str:
    return raw.hex(":")


def create_pair(name: str, mac: str, *, master: int, mtu: int, pod_name: str, pod_mac: str, netns_fd: int) -> Request:
    """A veth pair: `name` here and a port of the bridge `master`, `pod_name` in the network namespace of the fd."""
    data = _pair_template(master, mtu, pod_name).fill(
        name=name.encode(), mac=_mac(mac), pod_mac=_mac(pod_mac), fd=u32(netns_fd)
    )
    return Request(f"create veth pair {name}, {pod_name} in the pod", data)


@functools.lru_cache(maxsize=64)
def _pair_template(master: int, mtu: int, pod_name: str) -> Template:
    size = [("IFLA_MTU", mtu)] if mtu else []
    peer = nested(
        ("IFLA_IFNAME", pod_name), ("IFLA_ADDRESS", _colons(_PEER_MAC_MARK)), ("IFLA_NET_NS_FD", _FD_MARK), *size
    )
    attributes = [
        ("IFLA_IFNAME", _NAME_MARK.decode()),
        ("IFLA_ADDRESS", _colons(_MAC_MARK)),
        ("IFLA_MASTER", master),
        ("IFLA_LINKINFO", nested(("IFLA_INFO_KIND", "veth"), ("IFLA_INFO_DATA", nested(("VETH_INFO_PEER", peer))))),
        *size,
    ]
    data = _link(RTM_NEWLINK, NEW, attributes)
    return Template(data, name=_NAME_MARK, mac=_MAC_MARK, pod_mac=_PEER_MAC_MARK, fd=u32(_FD_MARK))


def set_port(name: str, *, hairpin: bool, isolated: bool, locked: bool) -> Request:
    """Options of a port of a bridge; and no IPv6 address of its own, which must be said before it comes up.

    `locked`: what comes from other MAC addresses than allow_address() has named is dropped (since Linux 5.18).
    """
    return Request(f"set options of {name}", _port_template(hairpin, isolated, locked).fill(name=name.encode()))


@functools.lru_cache(maxsize=8)
def _port_template(hairpin: bool, isolated: bool, locked: bool) -> Template:
    flags = [("IFLA_BRPORT_ISOLATED", isolated), ("IFLA_BRPORT_LOCKED", locked)]
    options = [("IFLA_BRPORT_MODE", int(hairpin)), *((flag, 1) for flag, wanted in flags if wanted)]
    port = nested(("IFLA_INFO_SLAVE_KIND", "bridge"), ("IFLA_INFO_SLAVE_DATA", nested(*options)))
    quiet = nested(("AF_INET6", nested(("IFLA_INET6_ADDR_GEN_MODE", IN6_ADDR_GEN_MODE_NONE))))
    attributes = [("IFLA_IFNAME", _NAME_MARK.decode()), ("IFLA_AF_SPEC", quiet), ("IFLA_LINKINFO", port)]
    return Template(_link(RTM_NEWLINK, 0, attributes), name=_NAME_MARK)


def allow_address(index: int, name: str, mac: str) -> Request:
    """A MAC address that is at this port of a bridge, in all of its VLANs, and at no other (bridge(8), "sticky")."""
    fields = {"family": socket.AF_BRIDGE, "ifindex": index, "state": NUD_NOARP, "flags": NTF_MASTER | NTF_STICKY}
    data = encode(ndmsg(), RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, [("NDA_LLADDR", mac)], **fields)
    return Request(f"let {mac} in at {name}", data)


def port_up(name: str) -> Request:
    """Bring the host's end of a pair up."""
    return Request(f"bring {name} up", _port_up_template().fill(name=name.encode()))


@functools.cache
def _port_up_template() -> Template:
    data = _link(RTM_NEWLINK, 0, [("IFLA_IFNAME", _NAME_MARK.decode())], flags=IFF_UP, change=IFF_UP)
    return Template(data, name=_NAME_MARK)


def link_up(index: int, name: str) -> Request:
    """Bring an interface up."""
    return Request(f"bring {name} up", _up_template().fill(index=u32(index)))


@functools.cache
def _up_template() -> Template:
    data = _link(RTM_NEWLINK, 0, [], index=INDEX_MARK, flags=IFF_UP, change=IFF_UP)
    return Template(data, index=u32(INDEX_MARK))


def set_master(name: str, master: int) -> Request:
    """Make an interface a port of a bridge."""
    return Request(f"make {name} a port", _link(RTM_SETLINK, 0, [("IFLA_IFNAME", name), ("IFLA_MASTER", master)]))


def port_down(name: str) -> Request:
    """Take the host's end of a pair down: no packet passes it any more."""
    return Request(f"take {name} down", _port_down_template().fill(name=name.encode()))


@functools.cache
def _port_down_template() -> Template:
    return Template(_link(RTM_SETLINK, 0, [("IFLA_IFNAME", _NAME_MARK.decode())], change=IFF_UP), name=_NAME_MARK)


def set_group(name: str, group: int) -> Request:
    """Put an interface into a device group (ip-link(8), "group")."""
    return Request(
        f"move {name} to group {group}", _link(RTM_SETLINK, 0, [("IFLA_IFNAME", name), ("IFLA_GROUP", group)])
    )


def delete_link(name: str) -> Request:
    """Remove an interface; of a veth pair, both ends."""
    return Request(f"delete {name}", _link(RTM_DELLINK, 0, [("IFLA_IFNAME", name)]))


def delete_group(group: int) -> Request:
    """Remove all interfaces of a group at once, which costs the kernel's waits once instead of once for each."""
    return Request(f"delete the links of group {group}", _link(RTM_DELLINK, 0, [("IFLA_GROUP", group)]))


def create_bridge(name: str, mac: str, *, mtu: int) -> Request:
    """A bridge with a MAC address of its own, which then does not change with its ports."""
    size = [("IFLA_MTU", mtu)] if mtu else []
    kind = nested(("IFLA_INFO_KIND", "bridge"))
    attributes = [("IFLA_IFNAME", name), ("IFLA_ADDRESS", mac), ("IFLA_LINKINFO", kind), *size]
    return Request(f"create bridge {name}", _link(RTM_NEWLINK, NEW, attributes))


def set_flags(index: int, name: str, flags: int) -> Request:
    """Set IFF_* flags of an interface."""
    return Request(f"set flags {flags:#x} of {name}", _link(RTM_NEWLINK, 0, [], index=index, flags=flags, change=flags))


def get_link_by_index(index: int, name: str) -> Request:
    """Ask for one interface by its index."""
    return Request(f"look up interface {name}", _get_template().fill(index=u32(index)))


@functools.cache
def _get_template() -> Template:
    return Template(_link(RTM_GETLINK, 0, [], index=INDEX_MARK), index=u32(INDEX_MARK))


def operational_state(answer: bytes) -> int:
    """The operational state (RFC 2863) in an answer to get_link_by_index()."""
    state = find_attribute(answer, _ATTRIBUTES_AT, IFLA_OPERSTATE)
    return state[0] if state else IF_OPER_UNKNOWN


def get_link(name: str) -> Request:
    """Ask for one interface."""
    return Request(f"look up interface {name}", _link(RTM_GETLINK, 0, [("IFLA_IFNAME", name)]))
