"""The steps that make the nodes in a container's /dev: what every container has, and for privileged ones the host's.

Source of the first: runtime-spec, config-linux.md, "Default Devices" and "Default symbolic links" (runtime-linux.md).
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from runtime.linux import paths
from runtime.tree import Step, Tree


@dataclass(frozen=True, slots=True)
class MakeDevice:
    """A device node; one that is there already is kept if it is the same device.

    `uid` and `gid` are ids of the node; -1 leaves the device to the container's root.
    """

    path: str
    kind: str
    major: int
    minor: int
    mode: int = 0o666
    uid: int = -1
    gid: int = -1

    def describe(self) -> str:
        return f"make device {self.path} ({self.kind} {self.major}:{self.minor})"

    def execute(self, tree: Tree) -> None:
        directory, name = os.path.split(self.path)
        parent = paths.make_directory(tree.root, directory)
        try:
            self._make(tree, parent, name)
        finally:
            os.close(parent)

    def _make(self, tree: Tree, parent: int, name: str) -> None:
        kind = {"c": stat.S_IFCHR, "u": stat.S_IFCHR, "b": stat.S_IFBLK, "p": stat.S_IFIFO}[self.kind]
        device = os.makedev(self.major, self.minor) if self.kind != "p" else 0
        try:
            os.mknod(name, kind | self.mode, device, dir_fd=parent)
        except FileExistsError:
            found = os.stat(name, dir_fd=parent, follow_symlinks=False)
            if (stat.S_IFMT(found.st_mode), found.st_rdev) != (kind, device):
                raise
            return
        if max(self.uid, self.gid) > 0 or (self.uid == 0 and tree.userns >= 0):
            os.chown(name, self.uid, self.gid, dir_fd=parent, follow_symlinks=False)


@dataclass(frozen=True, slots=True)
class Link:
    """A symbolic link in a filesystem that we have just mounted ourselves."""

    path: str
    destination: str

    def describe(self) -> str:
        return f"link {self.path} to {self.destination}"

    def execute(self, tree: Tree) -> None:
        directory, name = os.path.split(self.path)
        parent = paths.make_directory(tree.root, directory)
        try:
            os.symlink(self.destination, name, dir_fd=parent)
        except FileExistsError:
            return  # the image or a mount brings its own /dev
        finally:
            os.close(parent)


DEFAULT: Final[tuple[Step, ...]] = (
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
    with contextlib.suppress(FileNotFoundError), os.scandir(directory) as entries:  # what is unplugged goes meanwhile
        for entry in entries:
            if entry.name in _NOT_TAKEN or entry.is_symlink():
                continue
            try:
                found = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            if stat.S_ISDIR(found.st_mode) and depth:
                yield from _walk(entry.path, depth - 1)
            elif stat.S_ISCHR(found.st_mode) or stat.S_ISBLK(found.st_mode):
                kind = "c" if stat.S_ISCHR(found.st_mode) else "b"
                device, mode = found.st_rdev, stat.S_IMODE(found.st_mode)
                yield MakeDevice(entry.path, kind, os.major(device), os.minor(device), mode, found.st_uid, found.st_gid)
