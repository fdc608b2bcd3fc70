"""The configuration of the host-local plugin: which addresses to give out, and which ones were asked for.

Addresses can be asked for in three ways (CONVENTIONS.md): CNI_ARGS "IP=", `args.cni.ips`, and the capability `ips`; the
capability `ipRanges` puts sets of ranges before those of the configuration.
"""

from __future__ import annotations

import functools
import ipaddress
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from cni import versions
from cni.call import Call
from cni.errors import InvalidConfig
from cni.ranges import Address, RangeSet
from cni.result import Dns, Route
from runtime.linux.files import read_limited

#: Of the reference plugin, so that both find each other's leases.
DEFAULT_DATA_DIR: Final = "/var/lib/cni/networks"
RESOLV_CONF_LIMIT: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class IpamConf:
    """What to give: an address of each of `sets`, the requested ones where they fit."""

    data_dir: str
    sets: tuple[RangeSet, ...]
    routes: tuple[Route, ...]
    resolv_conf: str


def read_ipam_conf(call: Call) -> IpamConf:
    """The configuration of a call; raises InvalidConfig."""
    ipam = call.config.get("ipam")
    if not isinstance(ipam, Mapping):
        raise InvalidConfig('host-local: the configuration has no "ipam" object')
    # Pods of a network come with the same text, whose ranges take longer to read than to compare.
    text = json.dumps([ipam, call.runtime_config("ipRanges"), call.version])
    return _parse(text)


@functools.lru_cache(maxsize=32)
def _parse(text: str) -> IpamConf:
    ipam, extra, version = json.loads(text)
    sets = list(extra or [])
    if ipam.get("subnet"):
        sets.append([ipam])
    sets += ipam.get("ranges") or []
    parsed = tuple(RangeSet.from_json(item) for item in sets)
    _check(parsed, version)
    data_dir = str(ipam.get("dataDir") or DEFAULT_DATA_DIR)
    if not data_dir.startswith("/"):
        raise InvalidConfig(f"host-local: dataDir {data_dir!r} is not an absolute path")
    try:
        routes = tuple(Route.from_json(item) for item in ipam.get("routes") or [])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InvalidConfig(
            f"host-local: routes: {error}", 'each is an object with "dst" and, optionally, "gw"'
        ) from error
    return IpamConf(data_dir, parsed, routes, str(ipam.get("resolvConf") or ""))


def _check(sets: tuple[RangeSet, ...], version: str) -> None:
    if not sets:
        raise InvalidConfig("host-local: no ranges", 'set "subnet" or "ranges" in "ipam"')
    for position, item in enumerate(sets):
        for other in sets[position + 1 :]:
            if item.overlaps(other):
                raise InvalidConfig(f"host-local: range sets {item} and {other} overlap")
    families = [item.ranges[0].subnet.version for item in sets]
    if len(set(families)) < len(families) and not versions.at_least(version, "0.3.0"):
        raise InvalidConfig(f"host-local: CNI {version or versions.UNSPOKEN} has no second address of one family")


def requested_addresses(call: Call) -> list[Address]:
    """The addresses that the caller asks for, without prefix lengths; raises InvalidConfig."""
    asked = [text for key, text in call.args.items() if key.upper() == "IP"]
    asked += list(call.labelled_args().get("ips") or [])
    asked += list(call.runtime_config("ips") or [])
    try:
        return list(dict.fromkeys(ipaddress.ip_interface(str(text)).ip for text in asked))
    except ValueError as error:
        raise InvalidConfig(f"host-local: requested address: {error}") from error


def read_resolv_conf(path: str) -> Dns:
    """The settings of a resolv.conf(5); raises OSError."""
    dns = Dns()
    for line in read_limited(path, RESOLV_CONF_LIMIT).decode("utf-8", "replace").splitlines():
        words = line.split()
        if len(words) < 2 or words[0][0] in "#;":
            continue
        if words[0] == "nameserver":
            dns.nameservers.append(words[1])
        elif words[0] == "domain":
            dns.domain = words[1]
        elif words[0] in ("search", "options"):
            getattr(dns, words[0]).extend(words[1:])
    return dns
