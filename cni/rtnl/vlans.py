"""Requests about VLANs of bridges and their ports (linux/if_bridge.h, net/bridge/br_netlink.c), for the slow paths."""

from __future__ import annotations

import socket
from typing import Any, Final

from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

from cni.rtnl.encoding import NEW, NLM_F_DUMP, encode, nested
from cni.rtnl.links import RTM_DELLINK, RTM_GETLINK, RTM_NEWLINK, RTM_SETLINK
from cni.rtnl.socket import Netlink, Request
from cni.vlans import LAST, Vlans

AF_BRIDGE: Final = socket.AF_BRIDGE
BRIDGE_FLAGS_SELF: Final = 2
BRIDGE_VLAN_INFO_PVID: Final = 0x2
BRIDGE_VLAN_INFO_UNTAGGED: Final = 0x4
BRIDGE_VLAN_INFO_RANGE_BEGIN: Final = 0x8
BRIDGE_VLAN_INFO_RANGE_END: Final = 0x10
RTEXT_FILTER_BRVLAN: Final = 0x2
_NATIVE: Final = BRIDGE_VLAN_INFO_PVID | BRIDGE_VLAN_INFO_UNTAGGED

Info = tuple[str, Any]


def filter_vlans(index: int, name: str) -> Request:
    """Have a bridge mind the VLANs of its ports."""
    data = nested(("IFLA_INFO_KIND", "bridge"), ("IFLA_INFO_DATA", nested(("IFLA_BR_VLAN_FILTERING", 1))))
    return Request(
        f"switch VLAN filtering of {name} on",
        encode(ifinfmsg(), RTM_NEWLINK, 0, [("IFLA_LINKINFO", data)], index=index),
    )


def set_port_vlans(index: int, name: str, vlans: Vlans) -> list[Request]:
    """Put a port of a bridge into its VLANs, and out of those that it was born in."""
    requests = [] if vlans.preserve_default else [_vlans(RTM_DELLINK, index, name, _range(1, LAST))]
    requests += [_vlans(RTM_SETLINK, index, name, _range(first, last)) for first, last in vlans.tagged]
    return [*requests, _vlans(RTM_SETLINK, index, name, [_info(vlans.native, _NATIVE)])]


def join_vlan(index: int, name: str, vlan: int) -> Request:
    """Let the bridge itself take part in a VLAN, with tags, which its VLAN interface takes off."""
    return _vlans(RTM_SETLINK, index, name, [("IFLA_BRIDGE_FLAGS", BRIDGE_FLAGS_SELF), _info(vlan, 0)])


def create_vlan_link(name: str, parent: int, vlan: int, mac: str) -> Request:
    """The interface of the host in a VLAN of the bridge `parent`."""
    data = nested(("IFLA_INFO_KIND", "vlan"), ("IFLA_INFO_DATA", nested(("IFLA_VLAN_ID", vlan))))
    attributes = [("IFLA_IFNAME", name), ("IFLA_LINK", parent), ("IFLA_ADDRESS", mac), ("IFLA_LINKINFO", data)]
    return Request(f"create interface {name} of VLAN {vlan}", encode(ifinfmsg(), RTM_NEWLINK, NEW, attributes))


def list_port_vlans(netlink: Netlink, index: int, name: str) -> dict[int, int]:
    """The VLANs of a port and their BRIDGE_VLAN_INFO_* flags."""
    data = encode(ifinfmsg(), RTM_GETLINK, NLM_F_DUMP, [("IFLA_EXT_MASK", RTEXT_FILTER_BRVLAN)], family=AF_BRIDGE)
    found: dict[int, int] = {}
    for answer in netlink.ask(Request(f"list the VLANs of {name}", data)):
        message: Any = ifinfmsg(answer)
        message.decode()
        spec = message.get_attr("IFLA_AF_SPEC") if message["index"] == index else None
        for info in spec.get_attrs("IFLA_BRIDGE_VLAN_INFO") if spec is not None else ():
            found[info["vid"]] = info["flags"]
    return found


def is_native(flags: int) -> bool:
    """Whether these flags of a port's VLAN make it the native one."""
    return flags & _NATIVE == _NATIVE


def _vlans(kind: int, index: int, name: str, infos: list[Info]) -> Request:
    data = encode(ifinfmsg(), kind, 0, [("IFLA_AF_SPEC", nested(*infos))], family=AF_BRIDGE, index=index)
    return Request(f"change the VLANs of {name}", data)


def _range(first: int, last: int) -> list[Info]:
    if first == last:
        return [_info(first, 0)]
    return [_info(first, BRIDGE_VLAN_INFO_RANGE_BEGIN), _info(last, BRIDGE_VLAN_INFO_RANGE_END)]


def _info(vlan: int, flags: int) -> Info:
    return "IFLA_BRIDGE_VLAN_INFO", {"flags": flags, "vid": vlan}
