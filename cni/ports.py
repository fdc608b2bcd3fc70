"""The host's side of a pod's link: a veth pair, one end of which is a port of a bridge; the other is cni.podlink's.

    create the pair      one request: the pod's end is born in the pod's namespace, with its final name and MAC address
    configure the pod    one batch on the pod's socket: lo and the interface up, addresses, routes
    bring the port up    after that, so that its carrier is there at once and the bridge forwards without a delay
    await the carriers   of the pod's side and of the bridge, or the first packets would be lost

The host's end is named after the attachment, so that DEL, and a start after kill -9, know it without having seen ADD.
The pod's MAC address follows from its IP address: an address that is given to another pod keeps it, and nobody's
neighbour table has to be corrected.

Removing a veth pair keeps the caller waiting for the kernel's readers (RCU), some 16 ms here. But a link that is down
carries nothing, and a pod's namespace takes its links along when it goes. So DEL takes the port down and remembers it,
and what then still exists after a moment is removed, all at once, on a socket of its own.
"""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv6Interface
from typing import Final

from cni.errors import CniError, InvalidNetns
from cni.rtnl import links, vlans
from cni.rtnl.queries import find_link
from cni.rtnl.socket import Netlink, Request
from cni.vlans import Vlans

NO_VLANS: Final = Vlans()
HOST_PREFIX: Final = "veth"
#: Any number that nobody else uses for a device group; "na" in ASCII, then a serial number of two bytes.
DOOMED_GROUP: Final = 0x6E610000


def host_name(network: str, container_id: str, ifname: str) -> str:
    """The name of the host's end: 15 characters, the same for the same attachment on every day."""
    return HOST_PREFIX + _digest(network, container_id, ifname).hex()[: links.HOST_NAME_LENGTH - len(HOST_PREFIX)]


def host_mac(network: str, container_id: str, ifname: str) -> str:
    """A MAC address for the host's end: locally administered, and never the multicast kind."""
    raw = bytearray(_digest(network, container_id, ifname)[-6:])
    raw[0] = raw[0] & 0xFC | 0x02
    return raw.hex(":")


def pod_mac(address: IPv4Interface | IPv6Interface | None, network: str, container_id: str, ifname: str) -> str:
    """The pod's MAC address: 0a:58 and its IPv4 address, or four bytes of a digest of what identifies it otherwise."""
    if address is not None and address.version == 4:
        return (b"\x0a\x58" + address.ip.packed).hex(":")
    source = address.ip.packed if address is not None else _digest(network, container_id, ifname, "pod")
    return (b"\x0a\x58" + hashlib.sha256(source).digest()[:4]).hex(":")


def _digest(*parts: str) -> bytes:
    return hashlib.sha256("/".join(parts).encode()).digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """A pair to make: names and MAC addresses of both ends, the bridge's index, the pod's network namespace."""

    name: str
    mac: str
    bridge: int
    mtu: int
    hairpin: bool
    netns: str
    pod_name: str
    pod_mac: str
    isolated: bool = False
    #: Whether the pod's MAC address is the only one that it may send from.
    locked: bool = False
    vlans: Vlans = NO_VLANS


class Ports:
    """The host's side of pods' links."""

    def __init__(self, netlink: Netlink) -> None:
        self._netlink = netlink
        self._lock = threading.Lock()
        self._removing = threading.Lock()
        self._doomed: set[str] = set()
        self._serial = 0

    def create(self, port: Port) -> None:
        """Make the pair, with the port down; raises InvalidNetns or OSError (EEXIST: the pod has such an interface)."""
        with _Namespace(port.netns) as fd:
            self._netlink.do(
                links.create_pair(
                    port.name,
                    port.mac,
                    master=port.bridge,
                    mtu=port.mtu,
                    pod_name=port.pod_name,
                    pod_mac=port.pod_mac,
                    netns_fd=fd,
                ),
                _options(port),
            )
            self._settle(port)

    def _settle(self, port: Port) -> None:
        """What is said of a port by its index, which few networks want."""
        if port.vlans:
            index = self._netlink.index(port.name) or 0
            self._netlink.do(*vlans.set_port_vlans(index, port.name, port.vlans))
        if port.locked:
            link = find_link(self._netlink, port.name)
            if link is None or not link.locked:  # an attribute that a kernel does not know it passes over
                raise CniError(f"{port.name} cannot be locked to a MAC address", "macspoofchk takes Linux 5.18")
            self._netlink.do(links.allow_address(link.index, port.name, port.pod_mac))

    def rejoin(self, port: Port) -> None:
        """Make a pair that is there a port of its bridge again; raises OSError (ENODEV: there is none)."""
        link = find_link(self._netlink, port.name)
        if link is None or link.master != port.bridge:
            self._netlink.do(links.set_master(port.name, port.bridge), _options(port))
            self._settle(port)

    def up(self, port: Port) -> None:
        """Let packets through."""
        self._netlink.do(links.port_up(port.name))

    def cut(self, name: str) -> bool:
        """Let no packet through any more, and have the pair removed by remove_cut(); False when there is none."""
        if not exists_after(self._netlink, links.port_down(name)):
            return False
        with self._lock:
            self._doomed.add(name)
        return True

    def doomed(self) -> set[str]:
        """The links that were cut and may still be there."""
        with self._lock:
            return set(self._doomed)

    def remove_cut(self, gone: Callable[[set[str]], None]) -> None:
        """Remove the links that were cut and did not go with their pods, and then tell `gone` the names of all."""
        with self._removing:
            names = self.doomed()
            group = DOOMED_GROUP | self._next_serial()
            left = [name for name in sorted(names) if exists_after(self._netlink, links.set_group(name, group))]
            if left:
                _remove_group(group)
            gone(names)
            with self._lock:
                self._doomed -= names

    def make_room(self, name: str) -> None:
        """See to it that a link can be made: an attachment may come back right after it was deleted."""
        if name in self.doomed():
            with self._removing:
                self.remove(name)
                with self._lock:
                    self._doomed.discard(name)

    def _next_serial(self) -> int:
        self._serial = (self._serial + 1) & 0xFFFF
        return self._serial

    def remove(self, name: str) -> None:
        """Remove a link now; a missing one is fine."""
        with Netlink.open() as own:
            exists_after(own, links.delete_link(name))


def _options(port: Port) -> Request:
    return links.set_port(port.name, hairpin=port.hairpin, isolated=port.isolated, locked=port.locked)


def _remove_group(group: int) -> None:
    try:
        with Netlink.open() as own:
            own.do(links.delete_group(group))
    except OSError as error:
        if error.errno != errno.ENODEV:  # the last of them went with its pod just now
            raise


def exists_after(netlink: Netlink, request: Request) -> bool:
    """Carry out a request about a link; False when there is none."""
    try:
        netlink.do(request)
    except OSError as error:
        if error.errno == errno.ENODEV:
            return False
        raise
    return True


class _Namespace:
    """A network namespace by path, open for the length of a with statement."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> int:
        try:
            self._fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise InvalidNetns(f"network namespace {self._path!r} cannot be opened: {error.strerror}") from error
        return self._fd

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)
