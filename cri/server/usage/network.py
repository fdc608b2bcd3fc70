"""Traffic of a pod's interfaces, read through /proc/PID/net/dev of its shim, which lives in the pod's network."""

from __future__ import annotations

import time
from dataclasses import dataclass

from cri.proto import api_pb2 as api
from runtime.linux.files import read_limited
from runtime.linux.procs import Process

LIMIT = 1 << 20
DEFAULT_INTERFACE = "eth0"


@dataclass(frozen=True, slots=True)
class Traffic:
    """Counters of one interface since it was made (proc_pid_net(5), dev)."""

    name: str
    rx_bytes: int
    rx_packets: int
    rx_errors: int
    rx_dropped: int
    tx_bytes: int
    tx_packets: int
    tx_errors: int
    tx_dropped: int


def traffic(shim: Process) -> list[Traffic]:
    """All interfaces of the network namespace but loopback; none when the shim is gone."""
    try:
        text = read_limited(f"/proc/{shim.pid}/net/dev", LIMIT).decode("ascii", "replace")
    except OSError:  # not there, or ending while it is read
        return []
    if not shim.alive():  # the pid may be another process by now, in the host's network
        return []
    return [_interface(line) for line in text.splitlines()[2:] if not line.lstrip().startswith("lo:")]


def _interface(line: str) -> Traffic:
    name, _, rest = line.partition(":")
    fields = [int(field) for field in rest.split()]
    return Traffic(name.strip(), *fields[0:4], *fields[8:12])


def fill_network(message: api.NetworkUsage, interfaces: list[Traffic]) -> None:
    """eth0 is the default interface; the others, which further networks have made, are listed beside it."""
    message.timestamp = time.time_ns()
    for interface in interfaces:
        default = interface.name == DEFAULT_INTERFACE
        entry = message.default_interface if default else message.interfaces.add()
        entry.name = interface.name
        entry.rx_bytes.value = interface.rx_bytes
        entry.rx_errors.value = interface.rx_errors
        entry.tx_bytes.value = interface.tx_bytes
        entry.tx_errors.value = interface.tx_errors
