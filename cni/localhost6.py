"""The way back from a pod to ::1, so that a host port answers at [::1] as it does at 127.0.0.1.

IPv6 has no route_localnet. What a pod answers is translated back to ::1 before it is routed, and the kernel looks up an
address of the loopback among the routes of the interface that the packet came from (rt6_need_strict() of
net/ipv6/route.c); so the pods' bridge gets a local route to ::1 of its own. That lets nobody in: a packet that bears
::1 on the wire is dropped before any translation (ip6_rcv_core() of net/ipv6/ip6_input.c).

With bridge-nf-call-ip6tables the translation happens in the bridge, before that check, and the answer is dropped by it.
"""

from __future__ import annotations

import errno

from cni import sysctl
from cni.journal import Journal
from cni.rtnl import addresses
from cni.rtnl.queries import find_link
from cni.rtnl.socket import Netlink

SETTING = "net/bridge/bridge-nf-call-ip6tables"


def is_possible(netlink: Netlink, interface: str) -> bool:
    """Whether answers that come through this interface of the host can reach ::1."""
    link = find_link(netlink, interface)
    return link is not None and (link.kind not in ("bridge", "vlan") or sysctl.read(SETTING) in (None, "0"))


def make_way(netlink: Netlink, interface: str, network: str, journal: Journal) -> None:
    """Give the interface its route; one that is there is fine. Raises OSError."""
    journal.shared("route", interface, network)
    try:
        netlink.do(addresses.add_localhost_route(_index(netlink, interface), interface))
    except OSError as error:
        if error.errno != errno.EEXIST:
            raise


def remove_way(netlink: Netlink, interface: str) -> None:
    """Take the route away; one that is gone, maybe with its interface, is fine. Raises OSError."""
    index = netlink.index(interface)
    if index is None:
        return
    try:
        netlink.do(addresses.delete_localhost_route(index, interface))
    except OSError as error:
        if error.errno != errno.ESRCH:
            raise


def _index(netlink: Netlink, interface: str) -> int:
    index = netlink.index(interface)
    if index is None:
        raise OSError(errno.ENODEV, "interface is gone", interface)
    return index
