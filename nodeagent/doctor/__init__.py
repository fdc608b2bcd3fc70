"""What this host can do for pods, what it cannot, what follows from that, and what to do about it.

    finding.py       one answer
    probe.py         a process of its own that tries the kernel's features for real, and leaves nothing
    isolation.py     probes of namespaces, system calls, mounts and seccomp
    confinement.py   probes of cgroups and the device filter
    networking.py    probes of bridges, veth pairs and nftables, in a network namespace that ends with them
    features.py      what each probe's failure means
    host.py          kernel, capabilities, limits, memory, disk, clock
    software.py      libraries and programs
    node.py          sockets, networks and drivers of the node

Features are tried, not derived from version numbers: distributions take features back, and sandboxes forbid them.
"""

from __future__ import annotations

import asyncio

from nodeagent.doctor import features, host, node, software
from nodeagent.doctor.finding import FAIL, OK, WARN, Finding
from nodeagent.doctor.node import Places

__all__ = ["FAIL", "OK", "WARN", "Finding", "Places", "examine"]


async def examine(places: Places) -> list[Finding]:
    """All findings, area by area; takes about a second. Nothing is changed, and no finding raises."""
    tried, about_node = await asyncio.gather(asyncio.to_thread(features.try_all, places.root), node.examine(places))
    return [*host.examine(places.root), *tried, *software.examine(), *about_node]
