"""Bind mounts of volumes, judged by what the kernel's mount table says: the driver keeps no list of its own.

A volume is known again by (device, path inside the filesystem), which a bind mount carries for ever, so a driver that
was killed at any instruction sees at its next call exactly what is there.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from csi.hostpath.refusal import invalid
from runtime.linux import mountapi, mounts
from runtime.linux.mountoptions import MountOptions
from runtime.linux.mounttable import Mount, is_mount_point, mounts_at
from runtime.linux.mounttable import mounts as all_mounts
from runtime.linux.syscalls import UMOUNT_NOFOLLOW, umount2


class Place:
    """A directory by the identity that its bind mounts carry."""

    def __init__(self, directory: Path) -> None:
        covering = [m for m in all_mounts() if directory == Path(m.point) or Path(m.point) in directory.parents]
        mount = max(covering, key=lambda m: (len(m.point), m.id))
        self.device = mount.device
        self.root = os.path.normpath(os.path.join(mount.root, os.path.relpath(directory, mount.point)))

    def shown_by(self, mount: Mount) -> bool:
        """Whether the mount shows this directory itself."""
        return mount.device == self.device and mount.root == self.root

    def holds(self, mount: Mount) -> bool:
        """Whether the mount shows something below this directory, even if that was deleted since ("//deleted")."""
        return mount.device == self.device and mount.root.startswith(f"{self.root}/")


def bind(source: Path, target: Path, *, read_only: bool, flags: Sequence[str]) -> None:
    """Show `source` at `target`: with its options from its first moment on, since it is attached when complete."""
    options = MountOptions.parse(flags)
    if options.data or options.propagation or options.bind:
        raise invalid(f"mount flags {list(flags)} are not for a directory: use ro, noexec, nosuid, nodev, noatime")
    fd = mounts.bind(str(source))
    try:
        options.apply(fd)
        if read_only:
            mountapi.mount_setattr(fd, set_=mountapi.MOUNT_ATTR_RDONLY)
        mountapi.move_mount_at(fd, str(target))
    finally:
        os.close(fd)


def unbind(target: Path, volumes: Place) -> None:
    """Take away what this driver mounted at `target`, also when it is stacked; nothing there is no error.

    Raises Refusal, touching nothing, when something of another owner is mounted there.
    """
    found = mounts_at(target)
    foreign = [mount for mount in found if not volumes.holds(mount)]
    if foreign:
        raise invalid(f"{target} shows {foreign[-1].source} ({foreign[-1].fstype}), which is no volume of this driver")
    for _ in found:
        if is_mount_point(target):  # below a shared mount, one umount may take several of them along
            umount2(str(target), UMOUNT_NOFOLLOW)
