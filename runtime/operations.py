"""The small steps from which a container's filesystem tree is made, each of them data with describe() and execute().

They run in the child of clone3, in a mount namespace that is a copy of the host's, in the order of `runtime.rootfs`.
Every target is an fd that the kernel resolved inside the new root; every source is a detached mount. When a step fails,
its describe() goes into the error as a note: it says what was being done, in words that need no source code.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

from runtime.linux import mountapi, mounts, paths, syscalls, userns
from runtime.linux.mountoptions import MountOptions
from runtime.linux.overlay import OverlayRootfs, appends_layers, detached_overlay, idmapped_layers, overlay_at

# Image content must not decide where these are: CVE-2019-16884, CVE-2023-28642, CVE-2026-41579.
NO_LINKS: Final = frozenset({"/proc", "/sys", "/dev"})


@dataclass(slots=True)
class Tree:
    """The root being built: its fd, where it is attached until pivot_root, and mounts that were opened early.

    `userns` is an fd of the user namespace that the tree is for, -1 for the node's own.
    """

    staging: str
    root: int = -1
    userns: int = -1
    sources: dict[tuple[str, bool], list[int]] = field(default_factory=dict)
    null: int = -1
    empty: int = -1


class Operation(Protocol):
    """One step."""

    def describe(self) -> str:
        """What it does, for errors and logs."""

    def execute(self, tree: Tree) -> None:
        """Do it; raises OSError."""


def perform(operations: list[Operation], tree: Tree) -> None:
    """Execute them in order; the failing one is named in a note of its error."""
    for operation in operations:
        try:
            operation.execute(tree)
        except OSError as error:
            error.add_note(operation.describe())
            raise


@dataclass(frozen=True, slots=True)
class OpenSource:
    """Clone the mount at a host path before anything is changed, so that it keeps its peer group (propagation)."""

    path: str
    recursive: bool
    resolved: bool = False

    def describe(self) -> str:
        changed = ", which had no link in it when the container was created" if self.resolved else ""
        return f"open mount source {self.path}{changed}"

    def execute(self, tree: Tree) -> None:
        opened = tree.sources.setdefault((self.path, self.recursive), [])
        take = mounts.bind_resolved if self.resolved else mounts.bind
        opened.append(take(self.path, recursive=self.recursive))


@dataclass(frozen=True, slots=True)
class Isolate:
    """Stop this namespace's mounts from reaching the host; those of the host still arrive until pivot_root."""

    def describe(self) -> str:
        return "make all inherited mounts slaves of the host's"

    def execute(self, tree: Tree) -> None:
        syscalls.mount(None, "/", None, syscalls.MS_REC | syscalls.MS_SLAVE)


@dataclass(frozen=True, slots=True)
class MountRoot:
    """Attach the root filesystem over the staging directory."""

    rootfs: OverlayRootfs | str

    def describe(self) -> str:
        what = self.rootfs if isinstance(self.rootfs, str) else f"an overlay of {len(self.rootfs.lower)} layers"
        return f"mount {what} as the root filesystem"

    def execute(self, tree: Tree) -> None:
        if isinstance(self.rootfs, str):
            tree.root = mounts.bind(self.rootfs, recursive=tree.userns < 0)
            if tree.userns >= 0:
                mounts.idmap(tree.root, tree.userns, self.rootfs)
            mountapi.mount_setattr(tree.root, propagation=syscalls.MS_PRIVATE, flags=syscalls.AT_RECURSIVE)
            mountapi.move_mount_at(tree.root, tree.staging)
        elif tree.userns < 0:
            tree.root = self._mount_overlay(self.rootfs, tree.staging)
        else:
            with idmapped_layers(self.rootfs, tree.userns) as layers:
                tree.root = self._mount_overlay(layers, tree.staging)

    @staticmethod
    def _mount_overlay(layers: OverlayRootfs, staging: str) -> int:
        if not appends_layers():
            overlay_at(layers, staging)
            return os.open(staging, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        fd = detached_overlay(layers)
        mountapi.move_mount_at(fd, staging)
        return fd


@dataclass(frozen=True, slots=True)
class ActAsRoot:
    """From here on make everything for the root of the pod's user namespace, whose ids on the node these are."""

    uid: int
    gid: int

    def describe(self) -> str:
        return f"own files as {self.uid}:{self.gid}"

    def execute(self, tree: Tree) -> None:
        userns.act_as(self.uid, self.gid)


@dataclass(frozen=True, slots=True)
class MountOverlay:
    """Mount layers at a directory of the tree: an image as a volume."""

    target: str
    options: MountOptions

    def describe(self) -> str:
        return f"mount an overlay on {self.target}"

    def execute(self, tree: Tree) -> None:
        layers = OverlayRootfs(tuple(value for key, value in self.options.data if key == "lowerdir+" and value))
        if tree.userns < 0:
            self._mount(tree, layers)
        else:
            with idmapped_layers(layers, tree.userns) as mapped:
                self._mount(tree, mapped)

    def _mount(self, tree: Tree, layers: OverlayRootfs) -> None:
        if appends_layers():
            attach(tree, detached_overlay(layers, self.options.set_), self.target, directory=True)
            return
        place = open_target(tree, self.target, directory=True)
        try:
            # The name of an fd: the host's procfs is still there, and the fd was resolved inside the root.
            overlay_at(layers, f"/proc/self/fd/{place}", self.options.set_)
        finally:
            os.close(place)


@dataclass(frozen=True, slots=True)
class MountFilesystem:
    """Mount a new instance of a filesystem at a directory of the tree, which is made when missing."""

    fstype: str
    target: str
    options: MountOptions
    source: str = ""

    def describe(self) -> str:
        return f"mount {self.fstype} on {self.target}"

    def execute(self, tree: Tree) -> None:
        fd = mounts.filesystem(self.fstype, self.source or self.fstype, self.options.data, self.options.set_)
        attach(tree, fd, self.target, directory=True)


@dataclass(frozen=True, slots=True)
class Bind:
    """Attach a source that OpenSource has opened at a file or directory of the tree, which is made when missing."""

    path: str
    target: str
    options: MountOptions
    idmapped: bool = False
    resolved: bool = False

    def describe(self) -> str:
        return f"bind {self.path} on {self.target}"

    def execute(self, tree: Tree) -> None:
        fd = tree.sources[self.path, self.options.recursive].pop()
        if self.idmapped:
            mounts.idmap(fd, tree.userns, self.path)
        self.options.apply(fd)
        attach(tree, fd, self.target, directory=stat.S_ISDIR(os.fstat(fd).st_mode))


def attach(tree: Tree, mount_fd: int, target: str, *, directory: bool) -> None:
    """Attach a detached mount inside the tree and close its fd."""
    try:
        place = open_target(tree, target, directory=directory)
        try:
            mountapi.move_mount(mount_fd, place)
        finally:
            os.close(place)
    finally:
        os.close(mount_fd)


def open_target(tree: Tree, target: str, *, directory: bool) -> int:
    """The place for a mount, made when missing: links stay inside the root, and /proc, /sys, /dev must not be any."""
    if target in NO_LINKS:
        try:
            return paths.open_inside(tree.root, target, os.O_PATH | os.O_DIRECTORY, follow=False)
        except FileNotFoundError:
            return paths.make_directory(tree.root, target)
        except OSError as error:
            error.add_note(f"the image's {target} is not a plain directory")
            raise
    make: Callable[[int, str], int] = paths.make_directory if directory else paths.make_file
    return make(tree.root, target)


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
