"""The capability `portMappings` (CONVENTIONS.md), read, checked, and turned into elements of the firewall's maps."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface
from typing import Any, Final

from cni.call import Call
from cni.errors import InvalidConfig
from cni.firewall import Element, owner_name

PROTOCOLS: Final = ("tcp", "udp", "sctp")
LOOPBACK: Final = ipaddress.ip_network("127.0.0.0/8")
LOCALHOST6: Final = ipaddress.ip_address("::1")


@dataclass(frozen=True, slots=True)
class PortMapping:
    """A port of the host that leads to one of the pod; without `host_ip`, on every address of the host."""

    protocol: str
    host_port: int
    container_port: int
    host_ip: IPv4Address | IPv6Address | None = None

    @classmethod
    def from_json(cls, doc: Any) -> PortMapping:
        """From {"hostPort", "containerPort", "protocol", "hostIP"}; raises InvalidConfig."""
        if not isinstance(doc, Mapping):
            raise InvalidConfig(f"portmap: {doc!r} is not a port mapping")
        protocol = str(doc.get("protocol") or "tcp").lower()
        if protocol not in PROTOCOLS:
            raise InvalidConfig(
                f"portmap: protocol {protocol!r} of {dict(doc)}", f"it is one of {', '.join(PROTOCOLS)}"
            )
        try:
            host_ip = ipaddress.ip_address(str(doc["hostIP"])) if doc.get("hostIP") else None
        except ValueError as error:
            raise InvalidConfig(f"portmap: hostIP of {dict(doc)}: {error}") from error
        return cls(protocol, _port(doc, "hostPort"), _port(doc, "containerPort"), host_ip)

    def serves(self, version: int) -> bool:
        """Whether it is for a family of addresses."""
        return self.host_ip is None or self.host_ip.version == version

    @property
    def is_for_all(self) -> bool:
        """Whether it is for every address of the host."""
        return self.host_ip is None or self.host_ip.is_unspecified

    @property
    def is_for_localhost(self) -> bool:
        """Whether 127.0.0.1 is among the host's addresses that it is for."""
        return self.serves(4) and (self.host_ip is None or self.is_for_all or self.host_ip in LOOPBACK)

    @property
    def is_for_localhost6(self) -> bool:
        """Whether ::1 is among them."""
        return self.serves(6) and (self.is_for_all or self.host_ip == LOCALHOST6)

    def element(self, version: int, owner: str, pod: IPv4Address | IPv6Address | None = None) -> Element:
        """Its element for a family; without the pod's address it is good for taking the element out only."""
        key, where = f"{self.protocol} . {self.host_port}", f"ports{version}"
        if self.host_ip is not None and not self.host_ip.is_unspecified:
            key, where = f"{self.host_ip} . {key}", f"address_{where}"
        return Element(where, key, owner, f"{pod} . {self.container_port}" if pod is not None else "")

    def localhost6_element(self, owner: str, pod: IPv4Address | IPv6Address | None = None) -> Element:
        """Its element for ::1, of a mapping that is for every address."""
        return replace(self.element(6, owner, pod), where="localhost_ports6")


def read_port_mappings(call: Call) -> list[PortMapping]:
    """The mappings of a call; raises InvalidConfig, also for two of one port."""
    listed = call.runtime_config("portMappings") or []
    if not isinstance(listed, list):
        raise InvalidConfig("portmap: portMappings must be a list")
    mappings = list(dict.fromkeys(PortMapping.from_json(doc) for doc in listed))
    keys = [(mapping.protocol, mapping.host_port, mapping.host_ip) for mapping in mappings]
    for key in keys:
        if keys.count(key) > 1:
            raise InvalidConfig(f"portmap: host port {key[1]}/{key[0]} is mapped twice", "give each a port of its own")
    return mappings


def elements_of(
    call: Call,
    mappings: Iterable[PortMapping],
    pods: Iterable[IPv4Interface | IPv6Interface],
    *,
    localhost6: bool = False,
) -> list[Element]:
    """The elements that lead to a pod's addresses, of each family the first; with `localhost6` from ::1 too."""
    owner = owner_name(call.network, call.container_id, call.ifname)
    first = {address.version: address.ip for address in reversed(list(pods))}
    at_localhost6 = [
        mapping.localhost6_element(owner, first[6])
        for mapping in mappings
        if localhost6 and 6 in first and mapping.serves(6) and mapping.is_for_all
    ]
    return at_localhost6 + [
        mapping.element(version, owner, pod)
        for version, pod in sorted(first.items())
        for mapping in mappings
        if mapping.serves(version)
    ]


def keys_of(call: Call, mappings: Iterable[PortMapping]) -> list[Element]:
    """The elements that the pod may have, whatever its addresses were."""
    owner = owner_name(call.network, call.container_id, call.ifname)
    listed = list(mappings)
    keys = [mapping.element(version, owner) for version in (4, 6) for mapping in listed if mapping.serves(version)]
    return keys + [mapping.localhost6_element(owner) for mapping in listed if mapping.serves(6) and mapping.is_for_all]


def _port(doc: Mapping[str, Any], key: str) -> int:
    value = doc.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 65536:
        raise InvalidConfig(f"portmap: {key} {value!r} of {dict(doc)}", "a port is a number from 1 to 65535")
    return value
