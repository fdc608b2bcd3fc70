"""The steps that take things away from a container: masked and read-only paths, and at last the host's own tree.

They come after all mounts. A masked file is covered by the host's null device, checked by fstat: the container's own
/dev/null is a name that an image or another container could have replaced (CVE-2025-31133).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from runtime.linux import mountapi, mounts, paths, syscalls
from runtime.tree import Tree

NULL_DEVICE: Final = os.makedev(1, 3)
_COVER: Final = mountapi.MOUNT_ATTR_RDONLY | mountapi.MOUNT_ATTR_NOSUID | mountapi.MOUNT_ATTR_NOEXEC
_ABSENT: Final = (FileNotFoundError, NotADirectoryError)


def open_null_device(path: str = "/dev/null") -> int:
    """An O_PATH fd of the host's null device; raises OSError when something else is there."""
    fd = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    found = os.fstat(fd)
    if not stat.S_ISCHR(found.st_mode) or found.st_rdev != NULL_DEVICE:
        os.close(fd)
        raise OSError(f"{path} is not the null device (character device 1:3)")
    return fd


@dataclass(frozen=True, slots=True)
class MaskPath:
    """Cover a path: a directory by an empty one, a file by the null device. What does not exist needs none.

    `label`: the SELinux label of the empty directory, if not "".
    """

    path: str
    label: str = ""

    def describe(self) -> str:
        return f"mask {self.path}"

    def execute(self, tree: Tree) -> None:
        _cover(tree, self.path, self._over)

    def _over(self, tree: Tree, place: int) -> int:
        return self._empty(tree) if stat.S_ISDIR(os.fstat(place).st_mode) else self._null(tree)

    @staticmethod
    def _null(tree: Tree) -> int:
        if tree.null < 0:
            tree.null = open_null_device()
        cover = mounts.bind_fd(tree.null)
        mountapi.mount_setattr(cover, set_=_COVER)
        return cover

    def _empty(self, tree: Tree) -> int:
        if tree.empty < 0:  # one superblock for all: the first cover is attached, the others are binds of it
            data = [("size", "0"), ("nr_inodes", "2"), ("mode", "555")]
            if self.label:
                data.append(("context", self.label))
            first = mounts.filesystem("tmpfs", "tmpfs", data, _COVER)
            tree.empty = os.dup(first)
            return first
        return mounts.bind_fd(tree.empty)


@dataclass(frozen=True, slots=True)
class ReadonlyPath:
    """Make a path and all mounts below it read-only where it stands."""

    path: str

    def describe(self) -> str:
        return f"make {self.path} read-only"

    def execute(self, tree: Tree) -> None:
        _cover(tree, self.path, self._over)

    @staticmethod
    def _over(tree: Tree, place: int) -> int:
        cover = mounts.bind_fd(place, recursive=True)
        mountapi.mount_setattr(cover, set_=mountapi.MOUNT_ATTR_RDONLY, flags=syscalls.AT_RECURSIVE)
        return cover


def _cover(tree: Tree, path: str, over: Callable[[Tree, int], int]) -> None:
    """Attach what `over` makes for the place, an fd, on top of it; what does not exist needs no cover."""
    try:
        place = paths.open_inside(tree.root, path)
    except _ABSENT:
        return
    try:
        cover = over(tree, place)
        try:
            mountapi.move_mount(cover, place)
        finally:
            os.close(cover)
    finally:
        os.close(place)


@dataclass(frozen=True, slots=True)
class WorkingDirectory:
    """Make the process's working directory when the image lacks it, as peers do."""

    path: str

    def describe(self) -> str:
        return f"make the working directory {self.path}"

    def execute(self, tree: Tree) -> None:
        os.close(paths.make_directory(tree.root, self.path))


@dataclass(frozen=True, slots=True)
class ReadonlyRoot:
    """Refuse writes to the root filesystem itself; mounts in it keep their own mode."""

    def describe(self) -> str:
        return "make the root filesystem read-only"

    def execute(self, tree: Tree) -> None:
        mountapi.mount_setattr(tree.root, set_=mountapi.MOUNT_ATTR_RDONLY)


@dataclass(frozen=True, slots=True)
class Pivot:
    """Make the tree the root and let go of the host's mounts (pivot_root(2), "pivot_root(".", ".")")."""

    def describe(self) -> str:
        return "change to the container's root filesystem"

    def execute(self, tree: Tree) -> None:
        os.fchdir(tree.root)
        syscalls.pivot_root(".", ".")
        syscalls.umount2(".", syscalls.MNT_DETACH)
        os.chdir("/")
