"""bridge: connects a pod to a bridge on the host through a veth pair.

The order of ADD is that of the least to undo: an address first, then the pair, the pod's side of it, the network's
rules, and the port last, so a pod can be reached from the moment when everything else is in place.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import replace
from ipaddress import IPv4Interface, IPv6Interface
from typing import Any, Final

from cni import podlink, ports
from cni.bridge_check import check_attachment
from cni.bridge_conf import BridgeConf
from cni.bridges import Bridge
from cni.call import DEL, Call
from cni.errors import CniError, InvalidConfig
from cni.firewall import masquerade
from cni.nftables import load_library
from cni.plugin import Plugin, Site
from cni.ports import Port
from cni.result import Interface, Result, Route
from runtime.linux.failpoints import failpoint

_DEFAULT_ROUTES: Final = {4: ipaddress.ip_network("0.0.0.0/0"), 6: ipaddress.ip_network("::/0")}


class BridgePlugin(Plugin):
    """The plugin."""

    type = "bridge"
    needs_pod = True

    def add(self, call: Call, site: Site) -> Result:
        """Connect the pod; raises CniError or OSError, and takes back then what it has done for the pod."""
        conf = BridgeConf.of(call)
        name = ports.host_name(call.network, call.container_id, call.ifname)
        site.host.ports.make_room(name)
        if site.pod_netlink().index(call.ifname) is not None:
            # Before anything is done, because taking that back would take the one that is there, too.
            raise CniError(f"bridge: the pod has an interface {call.ifname} already", "DEL comes before another ADD")
        site.journal.plan("link", name)
        try:
            result = self._ask_for_addresses(call, site, conf)
            site.journal.commit()
            return self._connect(call, site, conf, result)
        except Exception as error:
            # SPEC.md, section 4: who has called an IPAM plugin calls it again with DEL when ADD fails.
            try:
                self.delete(call.with_command(DEL), site)
            except (CniError, OSError) as second:
                error.add_note(f"and taking it back failed: {second}")
            raise

    def _ask_for_addresses(self, call: Call, site: Site, conf: BridgeConf) -> Result:
        if not conf.ipam:
            return Result()
        result = site.runner.run(conf.ipam, call, site)
        if result is None or not result.ips:
            raise CniError(f"bridge: IPAM plugin {conf.ipam!r} gave no address")
        for ip in result.ips:
            if ip.gateway is None and conf.is_gateway:
                ip.gateway = ip.address.network.network_address + 1
            ip.interface = 2
        if conf.is_default_gateway:
            result.routes += _default_routes(result)
        return result

    def _connect(self, call: Call, site: Site, conf: BridgeConf, result: Result) -> Result:
        bridge, host = site.host.bridges.ensure(conf.spec, _gateways(conf, result), site.journal)
        port = _port(call, conf, bridge, result)
        try:
            site.host.ports.create(port)
        except OSError:
            site.host.bridges.forget(bridge.spec.name)  # perhaps it is not what it was; look the next time
            raise
        failpoint("cni.bridge.after_pair")
        if conf.up:
            pod_ips = [ip.address for ip in result.ips]
            podlink.configure(site.pod_netlink(), call.ifname, pod_ips, _pod_routes(result), dad=conf.dad)
        else:
            podlink.leave_down(site.pod_netlink())
        failpoint("cni.bridge.after_configure")
        if conf.masquerade:
            _masquerade(call, site, conf, result)
        site.host.ports.up(port)
        if conf.up:
            podlink.await_carriers(site.host.netlink, port, site.pod_netlink(), host.index)
        if conf.up and conf.dad:
            podlink.await_addresses(site.pod_netlink(), call.ifname)
        failpoint("cni.bridge.after_up")
        result.interfaces = [
            Interface(bridge.spec.name, mac=bridge.mac, mtu=conf.spec.mtu),
            Interface(port.name, mac=port.mac, mtu=conf.spec.mtu),
            Interface(call.ifname, mac=port.pod_mac, sandbox=call.netns, mtu=conf.spec.mtu),
            *([Interface(host.spec.name, mac=host.mac)] if host is not bridge else []),
        ]
        if conf.dns.to_json():
            result.dns = conf.dns
        return result

    def delete(self, call: Call, site: Site) -> None:
        """Disconnect the pod and give its addresses back; what is gone already is fine."""
        conf = BridgeConf.of(call)
        cut = site.host.ports.cut(ports.host_name(call.network, call.container_id, call.ifname))
        if not cut and site.pod is not None:
            podlink.remove_from_pod(site.pod, call.ifname)  # made by another bridge plugin, which names ends otherwise
        failpoint("cni.bridge.after_cut")
        if conf.ipam:
            site.runner.run(conf.ipam, call, site)

    def check(self, call: Call, site: Site) -> None:
        """Bridge, pair, addresses and routes must be as ADD has left them."""
        conf = BridgeConf.of(call)
        if conf.ipam:
            site.runner.run(conf.ipam, call, site)
        previous = call.previous()
        if previous is None:
            raise InvalidConfig("bridge: CHECK needs prevResult")
        check_attachment(call, site, conf, previous)

    def mend(self, call: Call, site: Site) -> None:
        """The bridge must be there and the pod's link its port."""
        conf, previous = BridgeConf.of(call), call.previous()
        if previous is not None:
            bridge, _ = site.host.bridges.ensure(conf.spec, _gateways(conf, previous), site.journal)
            site.host.ports.rejoin(_port(call, conf, bridge, previous))

    def missing_option(self, config: Mapping[str, Any]) -> str | None:
        """Ours has nftables as its only backend."""
        backend = "ipMasqBackend" if config.get("ipMasqBackend") == "iptables" else None
        return super().missing_option(config) or backend

    def status(self, call: Call, site: Site) -> None:
        """The IPAM plugin must be ready, and nftables usable if addresses are to be masqueraded."""
        conf = BridgeConf.of(call)
        if conf.masquerade:
            load_library()
        if conf.ipam:
            site.runner.run(conf.ipam, call, site)

    def gc(self, call: Call, site: Site, valid: frozenset[tuple[str, str]]) -> None:
        """The IPAM plugin frees addresses; the links went with their pods' namespaces."""
        conf = BridgeConf.of(call)
        if conf.ipam:
            site.runner.run(conf.ipam, call, site)


def _port(call: Call, conf: BridgeConf, bridge: Bridge, result: Result) -> Port:
    names = (call.network, call.container_id, call.ifname)
    first = result.ips[0].address if result.ips else None
    return Port(
        name=ports.host_name(*names),
        mac=ports.host_mac(*names),
        bridge=bridge.index,
        mtu=conf.spec.mtu,
        hairpin=conf.hairpin,
        isolated=conf.isolated,
        locked=conf.locked,
        vlans=conf.vlans,
        netns=call.netns,
        pod_name=call.ifname,
        pod_mac=conf.mac or ports.pod_mac(first, *names),
    )


def _masquerade(call: Call, site: Site, conf: BridgeConf, result: Result) -> None:
    """One entry for the network, made by its first pod."""
    firewall = site.host.firewall(conf.table)
    for subnet in dict.fromkeys(ip.address.network for ip in result.ips):
        elements = masquerade(subnet, call.network)
        if firewall.owner(elements[-1]) is None:
            for element in elements:
                site.journal.shared("nft", firewall.key(element), call.network, firewall.detail(element))
            firewall.add(*elements)
            failpoint("cni.bridge.after_masquerade")


def _gateways(conf: BridgeConf, result: Result) -> list[IPv4Interface | IPv6Interface]:
    """The addresses that the bridge has for the pod."""
    if not conf.is_gateway:
        return []
    return [
        ipaddress.ip_interface((ip.gateway.packed, ip.address.network.prefixlen)) for ip in result.ips if ip.gateway
    ]


def _default_routes(result: Result) -> list[Route]:
    """A default route of each family that has a gateway and none of its own yet."""
    present = {route.dst for route in result.routes if route.gw is not None}
    gateways = {ip.address.version: ip.gateway for ip in reversed(result.ips) if ip.gateway is not None}
    return [
        Route(_DEFAULT_ROUTES[version], gateway)
        for version, gateway in sorted(gateways.items())
        if _DEFAULT_ROUTES[version] not in present
    ]


def _pod_routes(result: Result) -> list[Route]:
    """The routes with the gateway that applies, each destination once."""
    gateways = {ip.address.version: ip.gateway for ip in reversed(result.ips) if ip.gateway is not None}
    filled = [route if route.gw else replace(route, gw=gateways.get(route.dst.version)) for route in result.routes]
    return list(dict.fromkeys(filled))


plugin = BridgePlugin()

if __name__ == "__main__":
    from cni.skeleton import run_as_program

    run_as_program(plugin)
