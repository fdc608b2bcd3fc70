"""Probes of what pod networks are made of, in a network namespace that ends with the probe.

Links are made by plain rtnetlink messages (rtnetlink(7)): the agent has no network library, and two messages need none.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
from collections.abc import Callable
from typing import Final

from runtime.linux import syscalls

RTM_NEWLINK: Final = 16
NLMSG_ERROR: Final = 2
NLM_F_REQUEST_ACK_CREATE: Final = 0x1 | 0x4 | 0x400 | 0x200
IFLA_IFNAME, IFLA_LINKINFO, IFLA_INFO_KIND, IFLA_INFO_DATA, VETH_INFO_PEER = 3, 18, 1, 2, 1
_NLMSGHDR, _IFINFOMSG = struct.Struct("=IHHII"), struct.Struct("=BxHiII")

LIBNFTABLES: Final = "libnftables.so.1"
RULES: Final = b"""
add table inet doctor
add chain inet doctor nat { type nat hook postrouting priority srcnat; }
add set inet doctor pods { type ipv4_addr; }
add rule inet doctor nat ip saddr @pods masquerade
add map inet doctor ports { type inet_proto . inet_service : ipv4_addr . inet_service; }
add chain inet doctor in { type nat hook prerouting priority dstnat; }
add rule inet doctor in dnat ip to meta l4proto . th dport map @ports
"""


def bridge(directory: str) -> str:
    _own_network()
    _new_link("doctor0", "bridge")
    return "bridges can be made"


def veth(directory: str) -> str:
    _own_network()
    peer = _IFINFOMSG.pack(0, 0, 0, 0, 0) + _attribute(IFLA_IFNAME, b"doctor1\0")
    _new_link("doctor0", "veth", _attribute(VETH_INFO_PEER, peer))
    return "veth pairs can be made"


def nftables(directory: str) -> str:
    """Masquerading and port mapping as pods need them, in one transaction."""
    _own_network()
    library = ctypes.CDLL(LIBNFTABLES)
    library.nft_ctx_new.restype = ctypes.c_void_p
    library.nft_ctx_get_error_buffer.restype = ctypes.c_char_p
    context = ctypes.c_void_p(library.nft_ctx_new(0))
    library.nft_ctx_buffer_output(context)
    library.nft_ctx_buffer_error(context)
    if library.nft_run_cmd_from_buffer(context, RULES):
        raise OSError((library.nft_ctx_get_error_buffer(context) or b"").decode().strip())
    return "sets, maps, masquerade and dnat work through libnftables"


def _own_network() -> None:
    syscalls.unshare(syscalls.CLONE_NEWNET)


def _new_link(name: str, kind: str, data: bytes = b"") -> None:
    """RTM_NEWLINK; raises OSError with the kernel's answer."""
    info = _attribute(IFLA_INFO_KIND, kind.encode()) + (_attribute(IFLA_INFO_DATA, data) if data else b"")
    body = _IFINFOMSG.pack(0, 0, 0, 0, 0)
    body += _attribute(IFLA_IFNAME, name.encode() + b"\0") + _attribute(IFLA_LINKINFO, info)
    header = _NLMSGHDR.pack(_NLMSGHDR.size + len(body), RTM_NEWLINK, NLM_F_REQUEST_ACK_CREATE, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as netlink:
        netlink.settimeout(2.0)
        netlink.send(header + body)
        answer = netlink.recv(4096)
    _, kind_of_answer, _, _, _ = _NLMSGHDR.unpack_from(answer)
    (status,) = struct.unpack_from("=i", answer, _NLMSGHDR.size)
    if kind_of_answer == NLMSG_ERROR and status:
        raise OSError(-status, f"{os.strerror(-status)}: no link of kind {kind}")


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + b"\0" * (-len(value) % 4)


PROBES: Final[dict[str, Callable[[str], str]]] = {"bridge": bridge, "veth": veth, "nftables": nftables}
