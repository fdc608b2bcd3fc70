"""Probes of cgroups: made, joined by clone3, with limits and a device filter, killed, and removed again."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from runtime.linux import syscalls
from runtime.linux.cgroups import Cgroup, bpf
from runtime.linux.cgroups.devices import DevicePolicy

_DENY_ALL: Final = [{"allow": False, "access": "rwm"}]
PIDS: Final = 5


def clone_into_cgroup(directory: str) -> str:
    """A child that is born in a cgroup, and dies with it by cgroup.kill."""
    with _cgroup() as cgroup:
        fd = cgroup.clone_fd()
        pid, pidfd = syscalls.clone3(0, cgroup=fd)
        if pid == 0:
            signal.pause()
            os._exit(0)
        if pid not in cgroup.procs():
            raise OSError("the child was not born in its cgroup")
        with open(f"{cgroup.v2}/cgroup.kill", "w") as file:
            file.write("1")
        os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
    return "CLONE_INTO_CGROUP and cgroup.kill work"


def limits(directory: str) -> str:
    """Limits of the four controllers that pods use."""
    settings = {
        "cpu": {"cpu": {"shares": 512, "quota": 50000, "period": 100000}},
        "memory": {"memory": {"limit": 64 << 20}},
        "pids": {"pids": {"limit": PIDS}},
    }
    with _cgroup() as cgroup:
        for resources in settings.values():
            cgroup.apply(resources)
        versions = {name: f"v{cgroup.layout.version(name)}" for name in settings}
    return ", ".join(f"{name} ({version})" for name, version in versions.items())


def device_filter(directory: str) -> str:
    """Devices denied: by an eBPF program on cgroup v2, by the devices controller on v1."""
    with _cgroup() as cgroup:
        if cgroup.layout.version("devices") == 1:
            cgroup.apply({"devices": _DENY_ALL})
            return "by the devices controller of cgroup v1"
        bpf.attach(cgroup.v2, DevicePolicy.from_rules(_DENY_ALL))
    return "by an eBPF program on cgroup v2"


@contextmanager
def _cgroup() -> Iterator[Cgroup]:
    cgroup = Cgroup(f"/nodectl-doctor-{os.getpid()}")
    try:
        cgroup.create()
        yield cgroup
    finally:
        cgroup.remove()


PROBES: Final[dict[str, Callable[[str], str]]] = {
    "CLONE_INTO_CGROUP": clone_into_cgroup,
    "cgroup limits": limits,
    "device filter": device_filter,
}
