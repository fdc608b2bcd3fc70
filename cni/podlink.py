"""The pod's side of its link: configured over the pod's own netlink socket, and waited for until packets pass.

    configure           lo and the interface up, addresses, routes, in one batch
    await_carriers      of the pod's side and of the bridge, or the first packets would be lost
    await_addresses     with duplicate address detection, until nobody has claimed them

The host's side is cni.ports.
"""

from __future__ import annotations

import time
from ipaddress import IPv4Interface, IPv6Interface
from typing import Final

from cni.errors import CniError
from cni.ports import Port, exists_after
from cni.result import Route
from cni.rtnl import addresses, links
from cni.rtnl.queries import address_flags
from cni.rtnl.socket import Netlink

CARRIER_SECONDS: Final = 1.0
CARRIER_POLL_SECONDS: Final = 0.001
#: The reference plugin's patience; the kernel asks once and waits a second for an answer.
DAD_SECONDS: Final = 10.0
DAD_POLL_SECONDS: Final = 0.05


def leave_down(pod: Netlink) -> None:
    """Bring the pod's loopback up only; raises OSError."""
    pod.do(links.link_up(links.LOOPBACK_INDEX, "lo"))


def configure(
    pod: Netlink, ifname: str, ips: list[IPv4Interface | IPv6Interface], routes: list[Route], *, dad: bool = False
) -> None:
    """Bring the pod's loopback and interface up and give the interface its addresses and routes; raises OSError."""
    index = _pod_index(pod, ifname)
    pod.do(
        links.link_up(links.LOOPBACK_INDEX, "lo"),
        links.link_up(index, ifname),
        *(addresses.add_address(index, ifname, ip, dad=dad) for ip in ips),
        *(addresses.add_route(index, ifname, route) for route in routes),
    )


def await_carriers(host: Netlink, port: Port, pod: Netlink, gateway: int) -> None:
    """Return when the pod and, through its bridge, the host can send to each other.

    What is sent before the kernel has noticed a carrier is dropped: the pod's on every ADD, the bridge's when this is
    its first active port. Since Linux 6.8 the question makes the kernel notice (rtnl_getlink() of
    net/core/rtnetlink.c); before, it takes a moment. An interface that does not get ready is no reason to fail.
    `gateway` is the index of the host's interface in the network, which is the bridge, or stands on it.
    """
    deadline = time.monotonic() + CARRIER_SECONDS
    for netlink, index, name in (
        (pod, _pod_index(pod, port.pod_name), port.pod_name),
        (host, port.bridge, "the bridge"),
        *([(host, gateway, "the bridge's VLAN interface")] if gateway != port.bridge else []),
    ):
        request = links.get_link_by_index(index, name)
        while links.operational_state(netlink.ask(request)[0]) != links.IF_OPER_UP and time.monotonic() < deadline:
            time.sleep(CARRIER_POLL_SECONDS)


def await_addresses(pod: Netlink, ifname: str) -> None:
    """Return when no other machine of the network has claimed the pod's IPv6 addresses (RFC 4862, section 5.4).

    Raises CniError for one that is taken, or when it takes too long to find out.
    """
    index, deadline = _pod_index(pod, ifname), time.monotonic() + DAD_SECONDS
    while True:
        flags = address_flags(pod, index, ifname)
        taken = [str(address.ip) for address, each in flags.items() if each & addresses.IFA_F_DADFAILED]
        if taken:
            raise CniError(f"bridge: {', '.join(taken)} is taken by another machine of the network")
        unsure = [str(address.ip) for address, each in flags.items() if each & addresses.IFA_F_TENTATIVE]
        if not unsure:
            return
        if time.monotonic() > deadline:
            raise CniError(f"bridge: whether {', '.join(unsure)} is free was not found out in {DAD_SECONDS:g} s")
        time.sleep(DAD_POLL_SECONDS)


def _pod_index(pod: Netlink, ifname: str) -> int:
    index = pod.index(ifname)
    if index is None:
        raise CniError(f"interface {ifname} is not in the pod's network namespace", "was it renamed or removed?")
    return index


def remove_from_pod(pod: Netlink, ifname: str) -> None:
    """Remove an interface of the pod, and so its other end; a missing one is fine."""
    exists_after(pod, links.delete_link(ifname))
