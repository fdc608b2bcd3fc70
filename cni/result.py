"""The result of ADD: interfaces, addresses, routes and DNS, and its forms in every version of the specification.

One typed form, that of 1.1, is used inside; JSON of another version is converted where it enters and leaves:

    0.1, 0.2    at most one "ip4" and one "ip6" object, routes inside them, no interfaces
    0.3, 0.4    lists, with "version": "4" or "6" beside each address
    1.0, 1.1    lists; 1.1 adds mtu, socketPath and pciID to interfaces and more keys to routes
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from typing import Any, Final

from cni import versions
from cni.errors import CniError, DecodingFailure

_NEW_INTERFACE_KEYS: Final = (("mtu", "mtu"), ("socketPath", "socket_path"), ("pciID", "pci_id"))
_NEW_ROUTE_KEYS: Final = ("mtu", "advmss", "priority", "table", "scope")


@dataclass(slots=True)
class Interface:
    """A network interface; `sandbox` is the path of its network namespace, or empty on the host."""

    name: str
    mac: str = ""
    sandbox: str = ""
    mtu: int = 0
    socket_path: str = ""
    pci_id: str = ""

    def to_json(self, version: str) -> dict[str, Any]:
        """Keys that are empty, or younger than `version`, are left out."""
        doc: dict[str, Any] = {"name": self.name}
        doc |= {key: value for key, value in (("mac", self.mac), ("sandbox", self.sandbox)) if value}
        if versions.at_least(version, "1.0.0"):
            doc |= {key: getattr(self, name) for key, name in _NEW_INTERFACE_KEYS if getattr(self, name)}
        return doc


@dataclass(slots=True)
class IpConfig:
    """An address with its prefix length; `interface` is an index into Result.interfaces."""

    address: IPv4Interface | IPv6Interface
    gateway: IPv4Address | IPv6Address | None = None
    interface: int | None = None

    def to_json(self, version: str) -> dict[str, Any]:
        """The object of the "ips" list."""
        doc: dict[str, Any] = {"address": str(self.address)}
        if not versions.at_least(version, "1.0.0"):
            doc["version"] = str(self.address.version)
        if self.gateway is not None:
            doc["gateway"] = str(self.gateway)
        if self.interface is not None:
            doc["interface"] = self.interface
        return doc


@dataclass(frozen=True, slots=True)
class Route:
    """A route; without a gateway, the gateway of the address of the same family applies."""

    dst: IPv4Network | IPv6Network
    gw: IPv4Address | IPv6Address | None = None
    mtu: int | None = None
    advmss: int | None = None
    priority: int | None = None
    table: int | None = None
    scope: int | None = None

    @classmethod
    def from_json(cls, doc: Mapping[str, Any]) -> Route:
        """Raises KeyError, TypeError or ValueError for anything else than a route."""
        gateway = doc.get("gw")
        extra = {key: int(doc[key]) for key in _NEW_ROUTE_KEYS if doc.get(key) is not None}
        # Host bits in dst are let pass, as Go's ParseCIDR does: "10.1.2.3/16" means its network.
        return cls(
            ipaddress.ip_network(doc["dst"], strict=False),
            ipaddress.ip_address(gateway) if gateway else None,
            **extra,
        )

    def to_json(self, version: str) -> dict[str, Any]:
        """The object of the "routes" list."""
        doc: dict[str, Any] = {"dst": str(self.dst)}
        if self.gw is not None:
            doc["gw"] = str(self.gw)
        if versions.at_least(version, "1.0.0"):
            doc |= {key: value for key in _NEW_ROUTE_KEYS if (value := getattr(self, key)) is not None}
        return doc


@dataclass(slots=True)
class Dns:
    """Settings for resolvers."""

    nameservers: list[str] = field(default_factory=list)
    domain: str = ""
    search: list[str] = field(default_factory=list)
    options: list[str] = field(default_factory=list)

    @classmethod
    def from_json(cls, doc: Mapping[str, Any]) -> Dns:
        """Missing keys are empty."""
        lists = {key: [str(item) for item in doc.get(key) or []] for key in ("nameservers", "search", "options")}
        return cls(domain=str(doc.get("domain") or ""), **lists)

    def to_json(self) -> dict[str, Any]:
        """Empty keys are left out."""
        pairs = {key: getattr(self, key) for key in ("nameservers", "domain", "search", "options")}
        return {key: value for key, value in pairs.items() if value}


@dataclass(slots=True)
class Result:
    """What an attachment got."""

    interfaces: list[Interface] = field(default_factory=list)
    ips: list[IpConfig] = field(default_factory=list)
    routes: list[Route] = field(default_factory=list)
    dns: Dns = field(default_factory=Dns)

    def pod_addresses(self, ifname: str) -> list[IPv4Interface | IPv6Interface]:
        """The addresses of the pod's interface of that name, in order; those that name no interface count as its."""
        return [ip.address for ip in self.ips if self._is_pods(ip.interface, ifname)]

    def _is_pods(self, index: int | None, ifname: str) -> bool:
        if index is None or not 0 <= index < len(self.interfaces):
            return True
        return bool(self.interfaces[index].sandbox) and self.interfaces[index].name == ifname

    def to_json(self, version: str) -> dict[str, Any]:
        """The result in the form of `version`; raises CniError when that form cannot hold it."""
        doc: dict[str, Any] = {"cniVersion": version}
        if not versions.at_least(version, "0.3.0"):
            return doc | self._to_two_addresses() | {"dns": self.dns.to_json()}
        if self.interfaces:
            doc["interfaces"] = [interface.to_json(version) for interface in self.interfaces]
        if self.ips:
            doc["ips"] = [ip.to_json(version) for ip in self.ips]
        if self.routes:
            doc["routes"] = [route.to_json(version) for route in self.routes]
        if dns := self.dns.to_json():
            doc["dns"] = dns
        return doc

    def _to_two_addresses(self) -> dict[str, Any]:
        doc: dict[str, Any] = {}
        for ip in self.ips:
            key = f"ip{ip.address.version}"
            if key not in doc:
                doc[key] = {"ip": str(ip.address)} | ({"gateway": str(ip.gateway)} if ip.gateway else {})
        if not doc:
            raise CniError("a result without addresses has no form before CNI 0.3.0", "raise cniVersion")
        for route in self.routes:
            if home := doc.get(f"ip{route.dst.version}"):
                home.setdefault("routes", []).append(route.to_json("0.2.0"))
        return doc


def parse_result(doc: Any, version: str) -> Result:
    """A result from JSON; `version` is that of the configuration, for results that do not tell theirs.

    Raises DecodingFailure for what is not a result, naming what is wrong with it.
    """
    if not isinstance(doc, dict):
        raise DecodingFailure("not a CNI result", f"expected a JSON object, got {type(doc).__name__}")
    spoken = doc.get("cniVersion") or version or versions.UNSPOKEN
    if not isinstance(spoken, str) or spoken not in versions.SUPPORTED:
        raise DecodingFailure("not a CNI result of a known version", f"cniVersion is {spoken!r}")
    try:
        return _from_lists(doc) if versions.at_least(spoken, "0.3.0") else _from_two_addresses(doc)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DecodingFailure("not a CNI result", f"{type(error).__name__}: {error}") from error


def _from_lists(doc: dict[str, Any]) -> Result:
    return Result(
        [_interface(item) for item in doc.get("interfaces") or []],
        [_ip_config(item, "address") for item in doc.get("ips") or []],
        [Route.from_json(item) for item in doc.get("routes") or []],
        Dns.from_json(doc.get("dns") or {}),
    )


def _from_two_addresses(doc: dict[str, Any]) -> Result:
    homes = [home for home in (doc.get("ip4"), doc.get("ip6")) if home]
    return Result(
        ips=[_ip_config(home, "ip") for home in homes],
        routes=[Route.from_json(item) for home in homes for item in home.get("routes") or []],
        dns=Dns.from_json(doc.get("dns") or {}),
    )


def _interface(doc: dict[str, Any]) -> Interface:
    return Interface(
        str(doc["name"]),
        mac=str(doc.get("mac") or ""),
        sandbox=str(doc.get("sandbox") or ""),
        mtu=int(doc.get("mtu") or 0),
        socket_path=str(doc.get("socketPath") or ""),
        pci_id=str(doc.get("pciID") or ""),
    )


def _ip_config(doc: dict[str, Any], key: str) -> IpConfig:
    gateway, interface = doc.get("gateway"), doc.get("interface")
    return IpConfig(
        ipaddress.ip_interface(doc[key]),
        ipaddress.ip_address(gateway) if gateway else None,
        None if interface is None else int(interface),
    )
