"""Connections that the kernel tracks and that a change of host ports has made wrong.

A tracked UDP "connection" keeps its way for as long as packets come. A client that sends on must not go on reaching
nobody after its port was mapped, or the address of a pod that is gone. TCP needs no help: its connections end.

Source: linux/netfilter/nfnetlink_conntrack.h; the reference portmap plugin does the same after ADD.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterable
from typing import Any, Final

from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.nfnetlink.nfctsocket import NFCTAttrTuple, NFCTSocket

UDP: Final = 17
DUMP_LIMIT: Final = 100_000

log = logging.getLogger(__name__)


def forget_udp(ports: Iterable[int]) -> None:
    """Forget the UDP flows to these ports of the host. Failing to is logged: they end by themselves, after minutes."""
    wanted = set(ports)
    if not wanted:
        return
    try:
        with NFCTSocket() as conntrack:
            for family in (socket.AF_INET, socket.AF_INET6):
                for flow in _flows(conntrack, family, wanted):
                    conntrack.entry("del", tuple_orig=flow)
    except (NetlinkError, OSError) as error:
        log.warning("UDP flows to host ports %s could not be forgotten: %s", sorted(wanted), error)


def _flows(conntrack: Any, family: int, ports: set[int]) -> list[Any]:
    found: list[Any] = []
    for number, entry in enumerate(conntrack.dump(tuple_orig=NFCTAttrTuple(family=family, proto=UDP))):
        if number > DUMP_LIMIT:
            break
        original = entry.get_attr("CTA_TUPLE_ORIG")
        addresses, protocol = original.get_attr("CTA_TUPLE_IP"), original.get_attr("CTA_TUPLE_PROTO")
        if protocol.get_attr("CTA_PROTO_NUM") != UDP or protocol.get_attr("CTA_PROTO_DST_PORT") not in ports:
            continue
        name = "V4" if family == socket.AF_INET else "V6"
        if (source := addresses.get_attr(f"CTA_IP_{name}_SRC")) is None:
            continue
        found.append(
            NFCTAttrTuple(
                family=family,
                saddr=source,
                daddr=addresses.get_attr(f"CTA_IP_{name}_DST"),
                proto=UDP,
                sport=protocol.get_attr("CTA_PROTO_SRC_PORT"),
                dport=protocol.get_attr("CTA_PROTO_DST_PORT"),
            )
        )
    return found
