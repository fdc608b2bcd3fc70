"""Where a container differs from its pod: namespaces of its own or of others, and sysctls, as its OCI config says.

It happens in the container's first process, before its file system is built: sysfs and procfs show the namespaces of
the process that mounts them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final

from runtime.errors import InvalidSpec
from runtime.linux import namespaces, syscalls

KINDS: Final = {"network": "net", "ipc": "ipc", "uts": "uts"}


def plan_separation(linux: Mapping[str, Any]) -> dict[str, Any]:
    """What of an OCI config's `linux` is to be done; empty for almost every container. Raises InvalidSpec."""
    plan: dict[str, Any] = {}
    if asked := linux.get("namespaces"):
        for entry in asked:
            if entry["type"] not in KINDS:
                raise InvalidSpec(f"a container's {entry['type']} namespace cannot be another one than its pod's")
        plan["namespaces"] = [[KINDS[entry["type"]], entry.get("path") or ""] for entry in asked]
    if asked := linux.get("sysctl"):
        for name in asked:
            namespaces.sysctl_namespace(name)
        plan["sysctls"] = dict(asked)
    return plan


def separate(plan: Mapping[str, Any]) -> None:
    """Do it to this process. Raises InvalidSpec for a sysctl that the kernel does not take, OSError."""
    for kind, path in plan.get("namespaces") or ():
        flag = namespaces.CLONE_FLAGS[kind]
        if path:
            _enter(path, flag)
        else:
            syscalls.unshare(flag)
            if kind == "net":
                namespaces.loopback_up()
    try:
        namespaces.set_sysctls((plan.get("sysctls") or {}).items())
    except ValueError as error:
        raise InvalidSpec(str(error)) from error


def _enter(path: str, flag: int) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        syscalls.setns(fd, flag)
    except OSError as error:
        error.add_note(f"entering the namespace at {path}")
        raise
    finally:
        os.close(fd)
