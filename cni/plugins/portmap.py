"""portmap: leads ports of the host to ports of the pod.

Each mapping is one element of a map that nftables looks a port up in (cni.firewall); no rule is added for a pod. A host
port that another pod has is refused, and named with its owner, instead of taken over.

With `snat` (the default), a pod also reaches itself and its neighbours through the host's address, and the host reaches
it at 127.0.0.1. For that the kernel must route 127.0.0.0/8 on the pods' bridge (route_localnet), which
would let neighbours in as well: the firewall's guard is put up before. At [::1] it reaches pods that have an IPv6
address, where the host allows it (cni.localhost6); where not, a mapping for every address does without, and one with
the hostIP ::1 is refused. A pod without an address of the hostIP's family has no such port (the reference's rule).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import IPv4Interface, IPv6Interface
from typing import Any

from cni import localhost6, sysctl
from cni.call import Call
from cni.conntrack import forget_udp
from cni.errors import CniError, InvalidConfig
from cni.firewall import Element, Firewall, hairpin, network_owner, owner_name, owner_prefix
from cni.nftables import load_library
from cni.plugin import Plugin, Site
from cni.portmappings import LOCALHOST6, PortMapping, elements_of, keys_of, read_port_mappings
from cni.result import Result
from cni.rtnl.queries import route_interface
from runtime.linux.failpoints import failpoint

MAPS = ("ports4", "ports6", "address_ports4", "address_ports6", "localhost_ports6")


class Portmap(Plugin):
    """The plugin; it runs after one that has given the pod its addresses."""

    type = "portmap"
    unsupported = ("conditionsV4", "conditionsV6", "externalSetMarkChain", "markMasqBit", "masqAll")

    def add(self, call: Call, site: Site) -> Result:
        """Map the ports; the result is the previous one."""
        previous = call.previous()
        if previous is None:
            raise InvalidConfig("portmap: there is no previous result", "list it after a plugin that gives addresses")
        mappings = read_port_mappings(call)
        addresses = previous.pod_addresses(call.ifname)
        through = _way_to_localhost6(call, site, mappings, addresses)
        elements = elements_of(call, mappings, addresses, localhost6=through is not None)
        if not elements:
            return previous
        firewall = _firewall(call, site)
        if through is not None:
            localhost6.make_way(site.host.netlink, through, call.network, site.journal)
        for element in elements:
            site.journal.plan("nft", firewall.key(element), firewall.detail(element))
        if call.config.get("snat", True):
            _let_them_back(call, site, firewall, previous, mappings)
        # The ledger names one owner of a port: nothing is written there before it is sure that it can be had.
        firewall.add(*elements, before=site.journal.commit)
        failpoint("cni.portmap.after_map")
        forget_udp(mapping.host_port for mapping in mappings if mapping.protocol == "udp")
        return previous

    def delete(self, call: Call, site: Site) -> None:
        """Take the mappings out; those that are another pod's by now stay."""
        mappings = read_port_mappings(call)
        if mappings:
            _firewall(call, site).remove(*keys_of(call, mappings))
            failpoint("cni.portmap.after_unmap")
            forget_udp(mapping.host_port for mapping in mappings if mapping.protocol == "udp")

    def check(self, call: Call, site: Site) -> None:
        """Every mapping must be there and the pod's."""
        previous = call.previous()
        if previous is None:
            raise InvalidConfig("portmap: CHECK needs prevResult")
        firewall = _firewall(call, site)
        for element in elements_of(call, read_port_mappings(call), previous.pod_addresses(call.ifname)):
            owner = firewall.owner(element)
            if owner != element.owner:
                state = "is missing" if owner is None else f"is of {owner!r}"
                raise CniError(f"portmap: the mapping of {element.key} {state} in nftables table {firewall.table}")

    def status(self, call: Call, site: Site) -> None:
        """nftables must be usable."""
        load_library()

    def gc(self, call: Call, site: Site, valid: frozenset[tuple[str, str]]) -> None:
        """Take out the mappings of the network that belong to no valid attachment."""
        firewall = _firewall(call, site)
        prefix = owner_prefix(call.network)
        owners = {owner_name(call.network, container_id, ifname) for container_id, ifname in valid}
        for where in MAPS:
            stale = [
                Element(where, key, owner)
                for key, owner in firewall.elements(where)
                if owner.startswith(prefix) and owner not in owners
            ]
            firewall.remove(*stale)

    def mend(self, call: Call, site: Site) -> None:
        """The pods' bridge must let through what comes from this host's own addresses."""
        previous, mappings = call.previous(), read_port_mappings(call)
        if previous is None or not mappings:
            return
        through = _way_to_localhost6(call, site, mappings, previous.pod_addresses(call.ifname))
        if through is not None:
            localhost6.make_way(site.host.netlink, through, call.network, site.journal)
        if call.config.get("snat", True):
            _let_them_back(call, site, _firewall(call, site), previous, mappings)

    def missing_option(self, config: Mapping[str, Any]) -> str | None:
        """Ours has nftables as its only backend."""
        return super().missing_option(config) or ("backend" if config.get("backend") == "iptables" else None)


def _firewall(call: Call, site: Site) -> Firewall:
    return site.host.firewall(str(call.config.get("nftTable") or ""))


def _let_them_back(call: Call, site: Site, firewall: Firewall, result: Result, mappings: list[PortMapping]) -> None:
    addresses = result.pod_addresses(call.ifname)
    for subnet in dict.fromkeys(address.network for address in addresses):
        _add_shared(call, site, firewall, hairpin(subnet, call.network))
    first = next((address for address in addresses if address.version == 4), None)
    if first is None or not any(mapping.is_for_localhost for mapping in mappings):
        return
    interface = route_interface(site.host.netlink, first.ip)
    if interface is None:
        raise CniError(f"portmap: the host has no route to the pod's address {first.ip}", "is its bridge up?")
    _add_shared(call, site, firewall, [Element("localnet", f'"{interface}"', network_owner(call.network))])
    setting = f"net/ipv4/conf/{interface}/route_localnet"
    if sysctl.read(setting) == "0":
        site.journal.shared("sysctl", setting, call.network, {"was": "0", "now": "1"})
        sysctl.write(setting, "1")


def _way_to_localhost6(
    call: Call, site: Site, mappings: list[PortMapping], addresses: Sequence[IPv4Interface | IPv6Interface]
) -> str | None:
    """The interface through which the pod answers, if its ports are to be had at [::1] and can be. Raises CniError."""
    first = next((address for address in addresses if address.version == 6), None)
    if first is None or not any(mapping.is_for_localhost6 for mapping in mappings):
        return None
    interface = route_interface(site.host.netlink, first.ip)
    possible = interface is not None and localhost6.is_possible(site.host.netlink, interface)
    if possible and call.config.get("snat", True):
        return interface
    for mapping in mappings:
        if mapping.host_ip == LOCALHOST6:
            setting = localhost6.SETTING.replace("/", ".")
            remedy = 'set "snat"' if possible else f"sysctl -w {setting}=0, or take 127.0.0.1"
            raise CniError(f"portmap: hostIP ::1 of port {mapping.host_port} cannot be had on this host", remedy)
    return None


def _add_shared(call: Call, site: Site, firewall: Firewall, elements: list[Element]) -> None:
    """Elements that the whole network needs, made by its first pod that maps a port."""
    if firewall.owner(elements[-1]) is None:
        for element in elements:
            site.journal.shared("nft", firewall.key(element), call.network, firewall.detail(element))
        firewall.add(*elements)


plugin = Portmap()

if __name__ == "__main__":
    from cni.skeleton import run_as_program

    run_as_program(plugin)
