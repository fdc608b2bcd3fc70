"""Devices of a container: nodes to make in its /dev and the rules of its device cgroup, in the OCI spec's words."""

from __future__ import annotations

import os
import posixpath
import stat
from typing import Any

from cri.proto import api_pb2 as api
from cri.server.errors import InvalidRequest, NotFound

_PERMISSIONS = frozenset("rwm")


def _rule(kind: str, major: int | None, minor: int | None, access: str) -> dict[str, Any]:
    rule: dict[str, Any] = {"allow": True, "type": kind, "access": access}
    if major is not None:
        rule["major"] = major
    if minor is not None:
        rule["minor"] = minor
    return rule


#: What every container may use (runtime-spec, "Default Devices"); mknod alone opens nothing.
DEFAULT_RULES: list[dict[str, Any]] = [
    {"allow": False, "access": "rwm"},
    _rule("c", None, None, "m"),
    _rule("b", None, None, "m"),
    *(_rule("c", 1, minor, "rwm") for minor in (3, 5, 7, 8, 9)),  # null zero full random urandom
    _rule("c", 5, 0, "rwm"),  # tty
    _rule("c", 5, 1, "rwm"),  # console
    _rule("c", 5, 2, "rwm"),  # ptmx
    _rule("c", 136, None, "rwm"),  # pts
]
PRIVILEGED_RULES: list[dict[str, Any]] = [{"allow": True, "access": "rwm"}]


def device_config(device: api.Device) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """linux.devices and the cgroup rules for one requested device or directory of devices. Blocks.

    Raises InvalidRequest, NotFound.
    """
    permissions = device.permissions or "rwm"
    if not set(permissions) <= _PERMISSIONS:
        raise InvalidRequest(f"device {device.host_path}: permissions {permissions[:16]!r} are not of r, w, m")
    target = device.container_path or device.host_path
    if not target.startswith("/"):
        raise InvalidRequest(f"device {device.host_path}: container_path {target[:200]!r} is not absolute")
    if "\0" in device.host_path + target:
        raise InvalidRequest(f"device {device.host_path[:200]!r} or its container_path {target[:200]!r} holds a NUL")
    root = os.path.realpath(device.host_path)
    nodes, rules = [], []
    for path, status in _device_nodes(root):
        place = posixpath.normpath(target + path.removeprefix(root))
        nodes.append(_node(place, status))
        rules.append(_rule(_kind(status), os.major(status.st_rdev), os.minor(status.st_rdev), permissions))
    return nodes, rules


def _device_nodes(host_path: str) -> list[tuple[str, os.stat_result]]:
    """The device at a path, or all devices below it when it is a directory, each with its stat. Blocks.

    Raises NotFound for a path that is neither.
    """
    try:
        status = os.stat(host_path)
    except FileNotFoundError:
        raise NotFound(f"device {host_path!r} does not exist on this host") from None
    if not stat.S_ISDIR(status.st_mode):
        if not _is_device(status):
            raise InvalidRequest(f"device {host_path!r} is neither a device node nor a directory of them")
        return [(host_path, status)]
    found = []
    for directory, _, names in os.walk(host_path):
        for name in names:
            path = os.path.join(directory, name)
            status = os.stat(path, follow_symlinks=False)
            if _is_device(status):
                found.append((path, status))
    return found


def _is_device(status: os.stat_result) -> bool:
    return stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode)


def _kind(status: os.stat_result) -> str:
    return "b" if stat.S_ISBLK(status.st_mode) else "c"


def _node(path: str, status: os.stat_result) -> dict[str, Any]:
    return {
        "path": path,
        "type": _kind(status),
        "major": os.major(status.st_rdev),
        "minor": os.minor(status.st_rdev),
        "fileMode": stat.S_IMODE(status.st_mode),
        "uid": status.st_uid,
        "gid": status.st_gid,
    }
