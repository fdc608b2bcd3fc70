"""Ranges of addresses to give out, as the host-local plugin is configured with them.

A set of ranges gives one address; a network with several sets (one for IPv4, one for IPv6) gives an address of each.
The search goes round a set from the address given last, so one that was just returned rests as long as possible.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from typing import Any

from cni.errors import InvalidConfig

Address = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class Range:
    """`start` to `end`, both included, in `subnet`; the gateway is never given out."""

    subnet: IPv4Network | IPv6Network
    start: Address
    end: Address
    gateway: Address

    @classmethod
    def from_json(cls, doc: Any) -> Range:
        """From {"subnet", "rangeStart", "rangeEnd", "gateway"}; raises InvalidConfig."""
        if not isinstance(doc, Mapping) or not doc.get("subnet"):
            raise InvalidConfig('host-local: a range needs a "subnet"')
        subnet = _network(doc["subnet"])
        if subnet.prefixlen > subnet.max_prefixlen - 2:
            raise InvalidConfig(f"host-local: subnet {subnet} is too small to allocate from")
        # Of IPv4 the last address is the broadcast; the first of both families belongs to the network.
        last = subnet.broadcast_address - (1 if subnet.version == 4 else 0)
        start, end = (
            _address(doc[key], f"{key} of {subnet}") if doc.get(key) else default
            for key, default in (("rangeStart", subnet.network_address + 1), ("rangeEnd", last))
        )
        for key, address in (("rangeStart", start), ("rangeEnd", end)):
            if address not in subnet:
                raise InvalidConfig(f"host-local: {key} {address} is not in {subnet}")
        if int(start) > int(end):
            raise InvalidConfig(f"host-local: rangeStart {start} comes after rangeEnd {end}")
        gateway = doc.get("gateway")
        return cls(subnet, start, end, _address(gateway, "gateway") if gateway else subnet.network_address + 1)

    def __contains__(self, address: Address) -> bool:
        return address.version == self.subnet.version and int(self.start) <= int(address) <= int(self.end)

    def interface(self, address: Address) -> IPv4Interface | IPv6Interface:
        """An address with the subnet's prefix length."""
        return ipaddress.ip_interface((address.packed, self.subnet.prefixlen))

    def overlaps(self, other: Range) -> bool:
        """Whether an address is in both."""
        return other.start in self or other.end in self or self.start in other

    def size(self) -> int:
        """How many addresses can be given out."""
        return int(self.end) - int(self.start) + 1 - (self.gateway in self)

    def __str__(self) -> str:
        return f"{self.start}-{self.end}"


@dataclass(frozen=True, slots=True)
class RangeSet:
    """Ranges of one family that do not overlap."""

    ranges: tuple[Range, ...]

    @classmethod
    def from_json(cls, doc: Any) -> RangeSet:
        """From a list of ranges; raises InvalidConfig."""
        if not isinstance(doc, list) or not doc:
            raise InvalidConfig("host-local: a set of ranges is a list with at least one range")
        ranges = tuple(Range.from_json(item) for item in doc)
        if len({item.subnet.version for item in ranges}) > 1:
            raise InvalidConfig("host-local: a set of ranges mixes IPv4 and IPv6", "make a set of each")
        for position, item in enumerate(ranges):
            for other in ranges[position + 1 :]:
                if item.overlaps(other):
                    raise InvalidConfig(f"host-local: ranges {item} and {other} overlap")
        return cls(ranges)

    def find(self, address: Address) -> Range | None:
        """The range that an address is in."""
        return next((item for item in self.ranges if address in item), None)

    def overlaps(self, other: RangeSet) -> bool:
        """Whether an address is in both sets."""
        return any(mine.overlaps(theirs) for mine in self.ranges for theirs in other.ranges)

    def size(self) -> int:
        """How many addresses can be given out."""
        return sum(item.size() for item in self.ranges)

    def candidates(self, last: Address | None, is_free: Callable[[Address], bool]) -> Iterator[tuple[Address, Range]]:
        """Free addresses, round the set from the one after `last`, each once."""
        home = self.find(last) if last is not None else None
        position = self.ranges.index(home) if home is not None else 0
        turns = [*self.ranges[position:], *self.ranges[:position]]
        first = int(last) + 1 if last is not None and home is not None else int(turns[0].start)
        spans = [(turns[0], first, int(turns[0].end))]
        spans += [(item, int(item.start), int(item.end)) for item in turns[1:]]
        spans.append((turns[0], int(turns[0].start), first - 1))
        for item, start, end in spans:
            kind = type(item.start)
            for number in range(start, end + 1):
                address = kind(number)
                if address != item.gateway and is_free(address):
                    yield address, item

    def __str__(self) -> str:
        return ",".join(str(item) for item in self.ranges)


def _network(text: Any) -> IPv4Network | IPv6Network:
    try:
        return ipaddress.ip_network(str(text))
    except ValueError as error:
        raise InvalidConfig(f"host-local: subnet {text!r} is not a network: {error}") from error


def _address(text: Any, what: str) -> Address:
    try:
        address = ipaddress.ip_address(str(text))
    except ValueError as error:
        raise InvalidConfig(f"host-local: {what} {text!r} is not an address") from error
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address
