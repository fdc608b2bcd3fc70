"""Mounts as values: what an overlay root filesystem is made of, what mount options mean, and how both become fds.

`images` hands out OverlayRootfs values and `runtime` mounts them, so the word for it stands here, below both.
Everything returns a detached mount as an fd; nothing is visible to anyone until it is attached with move_mount.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import functools
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from runtime.linux import mountapi as api
from runtime.linux.syscalls import (
    AT_EMPTY_PATH,
    AT_FDCWD,
    AT_RECURSIVE,
    MNT_DETACH,
    MS_PRIVATE,
    RESOLVE_NO_SYMLINKS,
    mount,
    openat2,
    umount2,
)

PAGE: Final = 4096

# mount(8) option -> (attributes to set, attributes to clear); mount_setattr(2).
_ATTRIBUTES: Final[dict[str, tuple[int, int]]] = {
    "ro": (api.MOUNT_ATTR_RDONLY, 0),
    "rw": (0, api.MOUNT_ATTR_RDONLY),
    "nosuid": (api.MOUNT_ATTR_NOSUID, 0),
    "suid": (0, api.MOUNT_ATTR_NOSUID),
    "nodev": (api.MOUNT_ATTR_NODEV, 0),
    "dev": (0, api.MOUNT_ATTR_NODEV),
    "noexec": (api.MOUNT_ATTR_NOEXEC, 0),
    "exec": (0, api.MOUNT_ATTR_NOEXEC),
    "nodiratime": (api.MOUNT_ATTR_NODIRATIME, 0),
    "diratime": (0, api.MOUNT_ATTR_NODIRATIME),
    "nosymfollow": (api.MOUNT_ATTR_NOSYMFOLLOW, 0),
    "symfollow": (0, api.MOUNT_ATTR_NOSYMFOLLOW),
    "noatime": (api.MOUNT_ATTR_NOATIME, api.MOUNT_ATTR__ATIME),
    "strictatime": (api.MOUNT_ATTR_STRICTATIME, api.MOUNT_ATTR__ATIME),
    "relatime": (api.MOUNT_ATTR_RELATIME, api.MOUNT_ATTR__ATIME),
    "atime": (api.MOUNT_ATTR_RELATIME, api.MOUNT_ATTR__ATIME),
}
# mount(2) flag values that mount_setattr takes in `propagation`; an "r" in front makes it recursive.
_PROPAGATION: Final[dict[str, int]] = {
    "private": 1 << 18,
    "slave": 1 << 19,
    "shared": 1 << 20,
    "unbindable": 1 << 17,
}
_IGNORED: Final = frozenset({"defaults", "async", "_netdev"})


@dataclass(frozen=True, slots=True)
class OverlayRootfs:
    """An overlay filesystem: `lower[0]` is the top layer; empty `upper` and `work` make it read-only."""

    lower: tuple[str, ...]
    upper: str = ""
    work: str = ""
    options: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The form for messages and state files."""
        return {"lower": list(self.lower), "upper": self.upper, "work": self.work, "options": list(self.options)}

    @classmethod
    def from_json(cls, doc: Mapping[str, Any]) -> OverlayRootfs:
        """The inverse of to_json(); unknown keys are ignored."""
        return cls(tuple(doc["lower"]), doc.get("upper", ""), doc.get("work", ""), tuple(doc.get("options", ())))


@dataclass(slots=True)
class MountOptions:
    """A list of OCI mount options, sorted by what they act on (runtime-spec, config.md "Mount options")."""

    set_: int = 0
    clear: int = 0
    recursive_set: int = 0
    recursive_clear: int = 0
    propagation: int = 0
    propagation_recursive: bool = False
    bind: bool = False
    recursive: bool = False
    data: tuple[tuple[str, str | None], ...] = ()

    @classmethod
    def parse(cls, options: Iterable[str]) -> MountOptions:
        """Sort the options; one that is no attribute is data for the filesystem, as in mount(8)."""
        parsed = cls()
        for option in options:
            if not parsed._take_attribute(option) and not parsed._take_word(option):
                key, separator, value = option.partition("=")
                parsed.data += ((key, value if separator else None),)
        return parsed

    def _take_attribute(self, option: str) -> bool:
        if option in _ATTRIBUTES:
            set_, clear = _ATTRIBUTES[option]
            self.set_ = self.set_ & ~clear | set_
            self.clear = self.clear & ~set_ | clear
        elif option[:1] == "r" and option[1:] in _ATTRIBUTES:
            set_, clear = _ATTRIBUTES[option[1:]]
            self.recursive_set = self.recursive_set & ~clear | set_
            self.recursive_clear = self.recursive_clear & ~set_ | clear
        else:
            return False
        return True

    def _take_word(self, option: str) -> bool:
        recursive = option[:1] == "r" and option[1:] in _PROPAGATION
        if option in _PROPAGATION or recursive:
            self.propagation = _PROPAGATION[option[1:] if recursive else option]
            self.propagation_recursive = recursive
        elif option in ("bind", "rbind"):
            self.bind, self.recursive = True, option == "rbind"
        else:
            return option in _IGNORED
        return True

    def apply(self, mount_fd: int) -> None:
        """Change a detached mount as the options say; without a word about propagation it becomes private."""
        everywhere = self.propagation_recursive or (self.recursive and not self.propagation)
        propagation = self.propagation or MS_PRIVATE
        if everywhere or self.recursive_set or self.recursive_clear:
            api.mount_setattr(
                mount_fd,
                set_=self.recursive_set,
                clear=self.recursive_clear,
                propagation=propagation if everywhere else 0,
                flags=AT_RECURSIVE,
            )
        if self.set_ or self.clear or not everywhere:
            api.mount_setattr(mount_fd, set_=self.set_, clear=self.clear, propagation=0 if everywhere else propagation)


def filesystem(fstype: str, source: str, data: Iterable[tuple[str, str | None]] = (), attributes: int = 0) -> int:
    """A new superblock as a detached mount. The OSError carries what the filesystem itself said about the failure."""
    fs = api.fsopen(fstype)
    try:
        with _explained(fs):
            api.fsconfig(fs, api.FSCONFIG_SET_STRING, "source", source)
            for key, value in data:
                api.fsconfig(fs, api.FSCONFIG_SET_FLAG if value is None else api.FSCONFIG_SET_STRING, key, value)
            api.fsconfig(fs, api.FSCONFIG_CMD_CREATE)
            return api.fsmount(fs, attributes)
    finally:
        os.close(fs)


@contextlib.contextmanager
def _explained(fs: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        for message in api.read_messages(fs):
            error.add_note(message)
        raise


def overlay(rootfs: OverlayRootfs, attributes: int = 0) -> int:
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
    """Whether this kernel's overlayfs knows "lowerdir+", so that overlay() works; asked once, without a mount.

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


def idmap(mount_fd: int, userns_fd: int, path: str) -> None:
    """Show the files of a detached mount of `path` to a user namespace as its own ids' (mount_setattr(2)).

    Raises OSError, which is EINVAL for a filesystem that cannot do it.
    """
    try:
        api.mount_setattr(mount_fd, set_=api.MOUNT_ATTR_IDMAP, userns_fd=userns_fd)
    except OSError as error:
        error.add_note(f"this kernel cannot id-map the filesystem of {path} (tmpfs since Linux 6.3, NFS not at all)")
        raise


def _quoted_context(option: str) -> str:
    """An SELinux label holds commas, and here they are between options too (mount(8), context=)."""
    key, _, value = option.partition("=")
    return f'{key}="{value}"' if key == "context" else option


def _escape(path: str) -> str:
    """overlayfs splits its options at commas and colons; a backslash protects both."""
    return path.replace("\\", "\\\\").replace(",", "\\,").replace(":", "\\:")


def bind(source: str, *, recursive: bool = False) -> int:
    """A detached copy of the mount at a path of the host, below that path only; links in it are followed."""
    return api.open_tree(AT_FDCWD, source, api.OPEN_TREE_CLONE | (AT_RECURSIVE if recursive else 0))


def bind_resolved(source: str, *, recursive: bool = False) -> int:
    """The same for a path that was resolved before: a link in it by now is an error (ELOOP), not followed."""
    try:
        fd = openat2(AT_FDCWD, f"{source}/.", os.O_PATH, resolve=RESOLVE_NO_SYMLINKS)  # the dot wakes an automount
    except NotADirectoryError:
        fd = openat2(AT_FDCWD, source, os.O_PATH, resolve=RESOLVE_NO_SYMLINKS)
    try:
        return bind_fd(fd, recursive=recursive)
    finally:
        os.close(fd)


def bind_fd(fd: int, *, recursive: bool = False) -> int:
    """A detached copy of the mount that an O_PATH fd refers to."""
    return api.open_tree(fd, "", api.OPEN_TREE_CLONE | AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0))
