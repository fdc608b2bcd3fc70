"""CHECK of the bridge plugin: what the result of ADD says against what the kernel says.

Other plugins of the chain may have added routes and addresses, or changed the MAC address and said so in the result;
so only what the result lists must be there, and what is there besides is nobody's business (SPEC.md, "CHECK").
"""

from __future__ import annotations

from cni.bridge_conf import BridgeConf
from cni.call import Call
from cni.errors import CniError
from cni.plugin import Site
from cni.result import Interface, Result
from cni.rtnl.queries import Link, find_link, list_addresses, list_routes
from cni.rtnl.socket import Netlink
from cni.rtnl.vlans import is_native, list_port_vlans
from cni.vlans import Vlans


def check_attachment(call: Call, site: Site, conf: BridgeConf, result: Result) -> None:
    """Raise CniError for the first thing that is missing or different."""
    pod = site.pod_netlink()
    bridge = _host_link(site, conf.spec.name, "bridge")
    inside = _pod_link(pod, call, result)
    port = _check_pair(site, result, bridge, inside)
    if conf.isolated and not port.isolated:
        raise CniError(f"bridge: {port.name} is not isolated from the other ports of {bridge.name} any more")
    if conf.locked and not port.locked:
        raise CniError(f"bridge: {port.name} lets packets of every MAC address in")
    if conf.vlans:
        _check_vlans(site, conf.vlans, bridge, port)
    _check_addresses(pod, call, result, inside)
    _check_routes(pod, result)


def _host_link(site: Site, name: str, kind: str) -> Link:
    link = find_link(site.host.netlink, name)
    if link is None or link.kind != kind:
        raise CniError(f"bridge: {kind} {name} is not on the host any more")
    if not link.is_up:
        raise CniError(f"bridge: {kind} {name} is down")
    return link


def _pod_link(pod: Netlink, call: Call, result: Result) -> Link:
    link = find_link(pod, call.ifname)
    if link is None or link.kind != "veth":
        raise CniError(f"bridge: the pod has no veth interface {call.ifname} any more")
    listed = [item for item in result.interfaces if item.name == call.ifname and item.sandbox]
    for item in listed:
        _check_mac(item, link)
    if not listed:
        raise CniError(f"bridge: the result lists no interface {call.ifname} in a sandbox")
    return link


def _check_mac(listed: Interface, link: Link) -> None:
    if listed.mac and listed.mac.lower() != link.mac.lower():
        raise CniError(f"bridge: {link.name} has MAC address {link.mac}, not {listed.mac}")


def _check_pair(site: Site, result: Result, bridge: Link, inside: Link) -> Link:
    """The host's end."""
    for item in result.interfaces:
        if item.sandbox or item.name == bridge.name:
            continue
        link = find_link(site.host.netlink, item.name)
        if link is not None and link.kind == "veth" and (link.peer, inside.peer) == (inside.index, link.index):
            _check_mac(item, link)
            if link.master != bridge.index or not link.is_up:
                raise CniError(f"bridge: {link.name} is not an active port of {bridge.name}")
            return link
    raise CniError(f"bridge: the host's end of the pod's {inside.name} is not on the host any more")


def _check_vlans(site: Site, wanted: Vlans, bridge: Link, port: Link) -> None:
    if not bridge.filters_vlans:
        raise CniError(f"bridge: {bridge.name} does not mind VLANs any more (vlan_filtering is off)")
    present = list_port_vlans(site.host.netlink, port.index, port.name)
    if not is_native(present.pop(wanted.native, 0)):
        raise CniError(f"bridge: VLAN {wanted.native} is not the native one of {port.name} any more")
    missing = [vlan for first, last in wanted.tagged for vlan in range(first, last + 1) if vlan not in present]
    if missing:
        raise CniError(f"bridge: {port.name} is not in VLAN {missing[0]} any more")
    more = [vlan for vlan in present if not wanted.carries(vlan)]
    if more and not wanted.preserve_default:
        raise CniError(f"bridge: {port.name} is in VLAN {more[0]}, which is not the pod's")


def _check_addresses(pod: Netlink, call: Call, result: Result, link: Link) -> None:
    present = list_addresses(pod, link.index, link.name)
    missing = [str(address) for address in result.pod_addresses(call.ifname) if address not in present]
    if missing:
        raise CniError(f"bridge: the pod's {link.name} has lost {', '.join(missing)}")


def _check_routes(pod: Netlink, result: Result) -> None:
    for version in {route.dst.version for route in result.routes}:
        present = list_routes(pod, version)
        for route in result.routes:
            if route.dst.version == version and not any(
                found.dst == route.dst and (route.gw is None or found.gateway == route.gw) for found in present
            ):
                raise CniError(f"bridge: the pod has lost the route to {route.dst}")
