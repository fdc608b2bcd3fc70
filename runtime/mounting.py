"""The steps that mount: the root filesystem, and what the config mounts in it, in the ids of the pod's namespace."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass

from runtime.linux import mountapi, mounts, syscalls, userns
from runtime.linux.lsm import set_label
from runtime.linux.mountoptions import MountOptions
from runtime.linux.overlay import (
    OverlayRootfs,
    appends_layers,
    attached_overlay,
    detached_overlay,
    idmapped_layers,
    overlay_at,
)
from runtime.tree import Tree, attach, open_target


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
            tree.root = attached_overlay(self.rootfs, tree.staging)
        else:
            with idmapped_layers(self.rootfs, tree.userns) as layers:
                tree.root = attached_overlay(layers, tree.staging)


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
    """Mount layers at a directory of the tree, under an SELinux label if it is not "": an image as a volume."""

    target: str
    options: MountOptions
    label: str = ""

    def describe(self) -> str:
        return f"mount an overlay on {self.target}"

    def execute(self, tree: Tree) -> None:
        lower = tuple(value for key, value in self.options.data if key == "lowerdir+" and value)
        layers = OverlayRootfs(lower).labelled(self.label)
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
    """Mount a new instance of a filesystem at a directory of the tree, which is made when missing.

    `label`: an SELinux label for its own directory, if not "".
    """

    fstype: str
    target: str
    options: MountOptions
    source: str = ""
    label: str = ""

    def describe(self) -> str:
        return f"mount {self.fstype} on {self.target}"

    def execute(self, tree: Tree) -> None:
        fd = mounts.filesystem(self.fstype, self.source or self.fstype, self.options.data, self.options.set_)
        if self.label:
            set_label(f"/proc/self/fd/{fd}", self.label)
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
