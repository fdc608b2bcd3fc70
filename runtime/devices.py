"""The nodes in a container's /dev: those that every container has, and for privileged ones those of the host.

Source of the first: runtime-spec, config-linux.md, "Default Devices" and "Default symbolic links" (runtime-linux.md).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from runtime.operations import Link, MakeDevice, Operation, Tree

DEFAULT: Final[tuple[Operation, ...]] = (
    MakeDevice("/dev/null", "c", 1, 3),
    MakeDevice("/dev/zero", "c", 1, 5),
    MakeDevice("/dev/full", "c", 1, 7),
    MakeDevice("/dev/random", "c", 1, 8),
    MakeDevice("/dev/urandom", "c", 1, 9),
    MakeDevice("/dev/tty", "c", 5, 0),
    Link("/dev/ptmx", "pts/ptmx"),
    Link("/dev/fd", "/proc/self/fd"),
    Link("/dev/stdin", "/proc/self/fd/0"),
    Link("/dev/stdout", "/proc/self/fd/1"),
    Link("/dev/stderr", "/proc/self/fd/2"),
)
# Directories that a container has mounts of its own for, and what belongs to the host's terminals.
_NOT_TAKEN: Final = frozenset({"pts", "shm", "fd", "mqueue", "console", "ptmx", ".udev", ".lxc", ".lxd-mounts"})
_DEPTH_MAX: Final = 8


def from_oci(doc: Mapping[str, Any]) -> MakeDevice:
    """One entry of `linux.devices`."""
    mode = doc.get("fileMode")
    return MakeDevice(
        path=doc["path"],
        kind=doc["type"],
        major=doc.get("major", 0),
        minor=doc.get("minor", 0),
        mode=0o666 if mode is None else mode & 0o7777,
        uid=doc.get("uid") or 0,
        gid=doc.get("gid") or 0,
    )


@dataclass(frozen=True, slots=True)
class HostDevices:
    """Every device node of the host's /dev, for a privileged container."""

    def describe(self) -> str:
        return "make the host's devices"

    def execute(self, tree: Tree) -> None:
        for device in _walk("/dev", _DEPTH_MAX):
            device.execute(tree)


def host_devices() -> list[dict[str, Any]]:
    """The same as entries of `linux.devices`. Blocks."""
    return [
        {
            "path": device.path,
            "type": device.kind,
            "major": device.major,
            "minor": device.minor,
            "fileMode": device.mode,
            "uid": device.uid,
            "gid": device.gid,
        }
        for device in _walk("/dev", _DEPTH_MAX)
    ]


def _walk(directory: str, depth: int) -> Iterator[MakeDevice]:
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.name in _NOT_TAKEN or entry.is_symlink():
                continue
            found = entry.stat(follow_symlinks=False)
            if stat.S_ISDIR(found.st_mode) and depth:
                yield from _walk(entry.path, depth - 1)
            elif stat.S_ISCHR(found.st_mode) or stat.S_ISBLK(found.st_mode):
                kind = "c" if stat.S_ISCHR(found.st_mode) else "b"
                device, mode = found.st_rdev, stat.S_IMODE(found.st_mode)
                yield MakeDevice(entry.path, kind, os.major(device), os.minor(device), mode, found.st_uid, found.st_gid)
