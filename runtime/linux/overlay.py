"""Overlay filesystems: of which layers one is made, as a value, and the ways to mount it that kernels offer.

`images` hands out OverlayRootfs values and `runtime` mounts them, so the word for it stands here, below both.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import functools
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from runtime.linux import mountapi as api
from runtime.linux.mounts import bind, filesystem, idmap
from runtime.linux.syscalls import MNT_DETACH, mount, umount2

PAGE: Final = 4096


@dataclass(frozen=True, slots=True)
class OverlayRootfs:
    """An overlay filesystem: `lower[0]` is the top layer; empty `upper` and `work` make it read-only."""

    lower: tuple[str, ...]
    upper: str = ""
    work: str = ""
    options: tuple[str, ...] = ()

    def labelled(self, label: str) -> OverlayRootfs:
        """The same with one SELinux label for all files; "" for those of the layers."""
        return dataclasses.replace(self, options=(*self.options, f"context={label}")) if label else self

    def to_json(self) -> dict[str, Any]:
        """The form for messages and state files."""
        return {"lower": list(self.lower), "upper": self.upper, "work": self.work, "options": list(self.options)}

    @classmethod
    def from_json(cls, doc: Mapping[str, Any]) -> OverlayRootfs:
        """The inverse of to_json(); unknown keys are ignored."""
        return cls(tuple(doc["lower"]), doc.get("upper", ""), doc.get("work", ""), tuple(doc.get("options", ())))


def detached_overlay(rootfs: OverlayRootfs, attributes: int = 0) -> int:
    """A detached overlay mount; needs "lowerdir+" (Linux 6.8): see appends_layers()."""
    data: list[tuple[str, str | None]] = [("lowerdir+", path) for path in rootfs.lower]
    if rootfs.upper:
        data += [("upperdir", rootfs.upper), ("workdir", rootfs.work)]
    for option in rootfs.options:
        key, separator, value = option.partition("=")
        data.append((key, value if separator else None))
    return filesystem("overlay", "overlay", data, attributes)


@functools.cache
def appends_layers() -> bool:
    """Whether this kernel's overlayfs knows "lowerdir+", so that detached_overlay() works; asked once, without a mount.

    Before 6.5 overlayfs had no parameters of its own kind: the context takes any word and only the mount fails.
    """
    fs = api.fsopen("overlay")
    try:
        for key, value, taken in (("lowerdir+", "/", True), ("no-such-option", None, False)):
            try:
                api.fsconfig(fs, api.FSCONFIG_SET_FLAG if value is None else api.FSCONFIG_SET_STRING, key, value)
            except OSError as error:
                if taken or error.errno != errno.EINVAL:
                    return False
            else:
                if not taken:
                    return False
        return True
    finally:
        os.close(fs)


def overlay_at(rootfs: OverlayRootfs, target: str, attributes: int = 0) -> None:
    """Mount the overlay at a path of the host by mount(2), for kernels without "lowerdir+".

    All options must fit in one page there, so the layers are named relative to the directory that they share: the
    caller's working directory is changed, which only a process about to pivot_root may do.
    """
    shared = os.path.commonpath([os.path.dirname(path) for path in rootfs.lower])
    os.chdir(shared)
    lower = ":".join(_escape(os.path.relpath(path, shared)) for path in rootfs.lower)
    options = [f"lowerdir={lower}", *map(_quoted_context, rootfs.options)]
    if rootfs.upper:
        options += [f"upperdir={_escape(rootfs.upper)}", f"workdir={_escape(rootfs.work)}"]
    data = os.fsencode(",".join(options))
    if len(data) >= PAGE:
        raise OSError(
            errno.E2BIG, f"{len(rootfs.lower)} layers do not fit into the options of one overlay mount", shared
        )
    # MS_RDONLY, MS_NOSUID, MS_NODEV and MS_NOEXEC have the values of the attributes of the same names.
    mount("overlay", target, "overlay", attributes & 0xF, data)


def attached_overlay(rootfs: OverlayRootfs, target: str) -> int:
    """Mount the overlay at a path of the host in whichever way this kernel has: an O_PATH fd of it.

    The caller's working directory may be changed, as by overlay_at().
    """
    if not appends_layers():
        overlay_at(rootfs, target)
        return os.open(target, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    fd = detached_overlay(rootfs)
    api.move_mount_at(fd, target)
    return fd


@contextlib.contextmanager
def idmapped_layers(rootfs: OverlayRootfs, userns_fd: int) -> Iterator[OverlayRootfs]:
    """The same layers, as a user namespace shall see them, for an overlay that is mounted within the block.

    The directory that they share is id-mapped once. Only what is attached can become a layer, so meanwhile it is
    attached over the root of this mount namespace, where no path leads: paths begin beneath it. The writable layer is
    not mapped; what is in it belongs to ids of the node.
    """
    shared = os.path.commonpath([os.path.dirname(path) for path in rootfs.lower])
    fd = bind(shared)
    try:
        idmap(fd, userns_fd, shared)
        api.move_mount_at(fd, "/")
        here = f"/proc/self/fd/{fd}"
        try:
            lower = tuple(f"{here}/{os.path.relpath(path, shared)}" for path in rootfs.lower)
            yield dataclasses.replace(rootfs, lower=lower)
        finally:
            umount2(here, MNT_DETACH)  # the overlay holds its own, private copies
    finally:
        os.close(fd)


def _quoted_context(option: str) -> str:
    """An SELinux label holds commas, and here they are between options too (mount(8), context=)."""
    key, _, value = option.partition("=")
    return f'{key}="{value}"' if key == "context" else option


def _escape(path: str) -> str:
    """overlayfs splits its options at commas and colons; a backslash protects both."""
    return path.replace("\\", "\\\\").replace(",", "\\,").replace(":", "\\:")
