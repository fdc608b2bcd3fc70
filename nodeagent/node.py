"""The node as pods see it: its name, addresses and size. Read once at start."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass, field
from pathlib import Path

_MEMINFO = Path("/proc/meminfo")
#: Documentation addresses (RFC 5737, RFC 3849): only the route to them is asked for, nothing is sent.
_TARGETS = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))


@dataclass(frozen=True, slots=True)
class Node:
    """`memory` in bytes; `systemd_cgroups` and `recursive_read_only` are what its runtime says of itself."""

    name: str
    addresses: tuple[str, ...] = ("127.0.0.1",)
    cpus: int = 1
    memory: int = 1 << 30
    swap: bool = False
    cgroup_root: str = "/"
    systemd_cgroups: bool = False
    recursive_read_only: bool = False
    kubelet_root: Path = field(default=Path("/var/lib/kubelet"))
    log_root: Path = field(default=Path("/var/log/pods"))


def this_node(name: str = "") -> Node:
    """Raises OSError when /proc cannot be read."""
    memory = _meminfo()
    return Node(
        name=name or socket.gethostname().lower(),
        addresses=_addresses(),
        cpus=os.cpu_count() or 1,
        memory=memory["MemTotal"],
        swap=memory.get("SwapTotal", 0) > 0,
    )


def _meminfo() -> dict[str, int]:
    """Bytes by name (proc_meminfo(5))."""
    lines = (line.partition(":") for line in _MEMINFO.read_text().splitlines())
    return {name: int(rest.split()[0]) * (1024 if rest.endswith("kB") else 1) for name, _, rest in lines}


def _addresses() -> tuple[str, ...]:
    """The addresses that the node would use to reach others, IPv4 first; the loopback without any route."""
    found: list[str] = []
    for family, target in _TARGETS:
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((target, 9))
                found.append(probe.getsockname()[0])
        except OSError:
            # No such route, or no IPv6 at all: then the node has no such address.
            continue
    return tuple(found) or ("127.0.0.1",)
