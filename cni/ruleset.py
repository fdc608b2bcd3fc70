"""The nftables ruleset of pod networks, in the language of nft(8). It is the same on every host, whatever runs there.

    prerouting, output    a packet to an address of this host: look its port up in the maps of host ports
    postrouting           masquerade what leaves a network, and what a host port sends back to where it came from
    guard                 a bridge on which portmap made 127.0.0.0/8 routable must not bring packets for it

A port at ::1 has a map of its own, and goes nowhere but where cni.localhost6 has made a way back: a packet that no
answer can reach is better refused than led astray.

Only packets to an address of this host are looked up (CVE-2019-9946, CVE-2025-67499), and what a neighbour sends to
127.0.0.1 is dropped before anything else sees it (CVE-2020-8558).
"""

from __future__ import annotations

from typing import Final

#: Of the 32 bits of a packet's mark, the one that the reference portmap plugin takes too; Kubernetes has 14 and 15.
MARK: Final = 1 << 13

#: Pairs of source and destination where one address would do: nft shows the comment of a plain interval only in lists.
_PAIRS: Final = tuple(f"{purpose}{version}" for purpose in ("inside", "masquerade", "hairpin") for version in (4, 6))
_CHAINS: Final = {
    "host_ports": "",
    "guard": "type filter hook prerouting priority -300; policy accept;",
    "prerouting": "type nat hook prerouting priority -100; policy accept;",
    "output": "type nat hook output priority -100; policy accept;",
    "postrouting": "type nat hook postrouting priority 100; policy accept;",
}
_RULES: Final = """
  chain host_ports {{
    meta mark set meta mark | {mark:#x}
    meta nfproto ipv4 dnat ip to ip daddr . meta l4proto . th dport map @address_ports4
    meta nfproto ipv6 dnat ip6 to ip6 daddr . meta l4proto . th dport map @address_ports6
    meta nfproto ipv4 dnat ip to meta l4proto . th dport map @ports4
    ip6 daddr ::1 dnat ip6 to meta l4proto . th dport map @localhost_ports6
    ip6 daddr != ::1 dnat ip6 to meta l4proto . th dport map @ports6
    meta mark set meta mark & {unmark:#x}
  }}
  chain guard {{
    iifname @localnet ip daddr 127.0.0.0/8 drop
    iifname @localnet ip saddr 127.0.0.0/8 drop
  }}
  chain prerouting {{
    fib daddr type local meta l4proto {{ tcp, udp, sctp }} jump host_ports
  }}
  chain output {{
    fib daddr type local meta l4proto {{ tcp, udp, sctp }} jump host_ports
  }}
  chain postrouting {{
    meta mark & {mark:#x} == {mark:#x} ip saddr 127.0.0.0/8 masquerade
    meta mark & {mark:#x} == {mark:#x} ip6 saddr ::1 masquerade
    meta mark & {mark:#x} == {mark:#x} ip saddr . ip daddr @hairpin4 masquerade
    meta mark & {mark:#x} == {mark:#x} ip6 saddr . ip6 daddr @hairpin6 masquerade
    ip saddr . ip daddr @inside4 accept
    ip6 saddr . ip6 daddr @inside6 accept
    ip daddr 224.0.0.0/4 accept
    ip6 daddr ff00::/8 accept
    ip saddr . ip daddr @masquerade4 masquerade
    ip6 saddr . ip6 daddr @masquerade6 masquerade
  }}
"""

SETS: Final = {name: f"type ipv{name[-1]}_addr . ipv{name[-1]}_addr; flags interval;" for name in _PAIRS} | {
    "localnet": "type ifname;"
}
_PORT: Final = "inet_proto . inet_service"
MAPS: Final = {f"ports{n}": f"type {_PORT} : ipv{n}_addr . inet_service;" for n in (4, 6)} | {
    f"address_ports{n}": f"type ipv{n}_addr . {_PORT} : ipv{n}_addr . inet_service;" for n in (4, 6)
}
MAPS["localhost_ports6"] = MAPS["ports6"]


def ruleset(table: str) -> str:
    """The commands that make the whole table; the chains are emptied first, should there be one of this name."""
    lines = [f"add table inet {table}"]
    lines += [f"add set inet {table} {name} {{ {text} }}" for name, text in SETS.items()]
    lines += [f"add map inet {table} {name} {{ {text} }}" for name, text in MAPS.items()]
    lines += [f"add chain inet {table} {name} {{ {text} }}" for name, text in _CHAINS.items()]
    lines += [f"flush chain inet {table} {name}" for name in _CHAINS]
    rules = _RULES.format(mark=MARK, unmark=0xFFFFFFFF ^ MARK)
    return "\n".join([*lines, f"table inet {table} {{{rules}}}"])
