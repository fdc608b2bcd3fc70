"""The configuration of the bridge plugin, with the keys and defaults of the reference plugin of this name.

Two keys are our own. `nftTable` is the name of the nftables table, for hosts where two nodes, or a node and a test,
live together. `keepAddresses` lets addresses of other subnets stay on the bridge, for pods that were there before
its network got another subnet.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from cni.bridges import BridgeSpec
from cni.call import Call
from cni.errors import InvalidConfig
from cni.names import check_ifname
from cni.result import Dns
from cni.vlans import Vlans

DEFAULT_BRIDGE: Final = "cni0"
_MAC: Final = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")


@dataclass(frozen=True, slots=True)
class BridgeConf:
    """The options of the plugin; `ipam` is the type of the IPAM plugin, empty for a link without addresses.

    `locked`: from the pod come packets of its own MAC address only, which the bridge itself sees to here (the reference
    plugin has nftables do it). `up` says whether the pod's interface is; whoever has it left down brings it up himself.
    `dad` is IPv6's duplicate address detection, which delays a pod by a second or two.
    """

    spec: BridgeSpec
    is_gateway: bool
    is_default_gateway: bool
    masquerade: bool
    hairpin: bool
    isolated: bool
    locked: bool
    vlans: Vlans
    up: bool
    dad: bool
    mac: str
    ipam: str
    table: str
    dns: Dns

    @classmethod
    def of(cls, call: Call) -> BridgeConf:
        """The options of a call; raises InvalidConfig."""
        config = call.config
        promiscuous, hairpin = _flag(config, "promiscMode"), _flag(config, "hairpinMode")
        if promiscuous and hairpin:
            raise InvalidConfig("bridge: hairpinMode and promiscMode exclude each other")
        mtu = config.get("mtu") or 0
        if not isinstance(mtu, int) or not 0 <= mtu <= 65535:
            raise InvalidConfig(f"bridge: mtu {mtu!r} is not a number up to 65535")
        vlans, up = Vlans.of(config), not _flag(config, "disableContainerInterface")
        ipam = str((config.get("ipam") or {}).get("type") or "")
        if ipam and not up:
            raise InvalidConfig("bridge: disableContainerInterface and ipam exclude each other")
        name = check_ifname(str(config.get("bridge") or DEFAULT_BRIDGE))
        default_gateway = _flag(config, "isDefaultGateway")
        return cls(
            BridgeSpec(
                name,
                call.network,
                mtu,
                promiscuous,
                _flag(config, "forceAddress"),
                _flag(config, "keepAddresses"),
                bool(vlans),
                vlans.native if config.get("vlan") else 0,
            ),
            is_gateway=default_gateway or _flag(config, "isGateway"),
            is_default_gateway=default_gateway,
            masquerade=_flag(config, "ipMasq"),
            hairpin=hairpin,
            isolated=_flag(config, "portIsolation"),
            locked=_flag(config, "macspoofchk"),
            vlans=vlans,
            up=up,
            dad=_flag(config, "enabledad"),
            mac=_requested_mac(call),
            ipam=ipam,
            table=str(config.get("nftTable") or ""),
            dns=Dns.from_json(config.get("dns") or {}),
        )


def _flag(config: Mapping[str, Any], key: str) -> bool:
    value = config.get(key, False)
    if not isinstance(value, bool):
        raise InvalidConfig(f"bridge: {key} must be true or false, not {value!r}")
    return value


def _requested_mac(call: Call) -> str:
    """The capability `mac`, args.cni.mac or CNI_ARGS "MAC=", in this order of precedence."""
    arguments = next((value for key, value in call.args.items() if key.upper() == "MAC"), "")
    mac = str(call.runtime_config("mac") or call.labelled_args().get("mac") or arguments).lower()
    if mac and (not _MAC.fullmatch(mac) or int(mac[:2], 16) & 1):
        raise InvalidConfig(f"bridge: {mac!r} is not the MAC address of an interface", "write xx:xx:xx:xx:xx:xx")
    return mac
