"""The network that pods get when no configuration is present: one bridge, addresses of one subnet, host ports."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cni import versions
from cni.conf import NetworkConf, parse_network
from cni.errors import InvalidConfig
from cni.names import check_ifname

DEFAULT_BRIDGE = "na0"
DEFAULT_SUBNET = "10.77.0.0/16"


def default_conflist(
    bridge: str = DEFAULT_BRIDGE,
    subnet: str | Sequence[str] = DEFAULT_SUBNET,
    *,
    data_dir: str = "",
    nft_table: str = "",
) -> dict[str, Any]:
    """A conflist of bridge, host-local and portmap; several subnets give each pod an address of each.

    The network is named after its bridge, so that two nodes on one machine, on bridges of their own, have networks of
    their own. Raises InvalidConfig.
    """
    check_ifname(bridge)
    subnets = [_network(text) for text in ([subnet] if isinstance(subnet, str) else subnet)]
    families = sorted({network.version for network in subnets})
    ipam: dict[str, Any] = {
        "type": "host-local",
        "ranges": [[{"subnet": str(network)}] for network in subnets],
        "routes": [{"dst": "0.0.0.0/0" if version == 4 else "::/0"} for version in families],
    }
    ours = {"nftTable": nft_table} if nft_table else {}
    return {
        "cniVersion": versions.CURRENT,
        "name": bridge,
        "plugins": [
            {
                "type": "bridge",
                "bridge": bridge,
                "isGateway": True,
                "ipMasq": True,
                "hairpinMode": True,
                "keepAddresses": True,
                "ipam": ipam | ({"dataDir": data_dir} if data_dir else {}),
                "capabilities": {"ips": True, "ipRanges": True, "mac": True},
                **ours,
            },
            {"type": "portmap", "snat": True, "capabilities": {"portMappings": True}, **ours},
        ],
    }


def parse_default(doc: Mapping[str, Any], leases: Path) -> NetworkConf:
    """The default network, its leases kept in a directory of ours unless it says otherwise."""
    plugins = [dict(plugin) for plugin in doc["plugins"]]
    for plugin in plugins:
        if (plugin.get("ipam") or {}).get("type") == "host-local":
            plugin["ipam"] = {"dataDir": str(leases)} | plugin["ipam"]
    return parse_network({**doc, "plugins": plugins}, source="built-in default")


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise InvalidConfig(f"default network: subnet {text!r}: {error}") from error
