"""The mount table of this process's namespace, read from the kernel and cleared from the deepest mount up.

Whoever removes a directory asks here first: a tree with a mount in it is somebody's data. The kernel's text is the
only source; no daemon keeps a list of its own that could differ.
"""

from __future__ import annotations

import errno
import os
import re
from dataclasses import dataclass

from runtime.linux.files import read_limited
from runtime.linux.syscalls import RESOLVE_NO_SYMLINKS, RESOLVE_NO_XDEV, UMOUNT_NOFOLLOW, openat2, umount2

MOUNTINFO = "/proc/self/mountinfo"
#: Bytes; the kernel's own limit is 100,000 mounts per namespace (fs.mount-max), some 150 bytes each.
TABLE_LIMIT = 64 << 20


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of mountinfo (proc_pid_mountinfo(5)); `root` is the path inside the filesystem that shows at `point`."""

    id: int
    parent: int
    device: str
    root: str
    point: str
    options: tuple[str, ...]
    fstype: str
    source: str
    #: Peer groups, as shared:12 or master:3; none for a private mount (mount_namespaces(7)).
    propagation: tuple[str, ...] = ()

    @property
    def read_only(self) -> bool:
        """Whether this mount refuses writes; its filesystem may refuse them besides."""
        return "ro" in self.options


def mounts(table: str = MOUNTINFO) -> list[Mount]:
    """Every mount, in the kernel's order: what is stacked on something comes after it.

    `table` may be that of another process, which sees its own root as "/" and shows no mount outside of it.
    """
    text = os.fsdecode(read_limited(table, TABLE_LIMIT))
    # Not splitlines(): a mount point's name may hold what Unicode takes for a line's end.
    return [_parsed(line) for line in text.split("\n") if line]


def _parsed(line: str) -> Mount:
    head, _, tail = line.partition(" - ")
    ids, parent, device, root, point, options, *propagation = head.split(" ")
    fstype, source = tail.split(" ")[:2]
    return Mount(
        int(ids),
        int(parent),
        device,
        _plain(root),
        _plain(point),
        tuple(options.split(",")),
        fstype,
        _plain(source),
        tuple(propagation),
    )


def _plain(text: str) -> str:
    """Undo the kernel's octal escapes of space, tab, newline and backslash."""
    if "\\" not in text:
        return text
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


def mounts_at(path: str | os.PathLike[str]) -> list[Mount]:
    """What is mounted exactly at an absolute, normalized path; the last one is the one that shows."""
    point = os.fspath(path)
    return [mount for mount in mounts() if mount.point == point]


def mounts_beneath(path: str | os.PathLike[str]) -> list[Mount]:
    """What is mounted at an absolute, normalized path or anywhere below it."""
    point = os.fspath(path)
    return [mount for mount in mounts() if mount.point == point or mount.point.startswith(point.rstrip("/") + "/")]


def mount_of(path: str | os.PathLike[str]) -> Mount:
    """The mount that `path` is on; raises OSError for a path that is not there."""
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        info = read_limited(f"/proc/self/fdinfo/{fd}", 4096).decode()
        id = next(int(line.split()[1]) for line in info.splitlines() if line.startswith("mnt_id:"))
        return next(mount for mount in mounts() if mount.id == id)
    finally:
        os.close(fd)


def is_mount_point(path: str | os.PathLike[str]) -> bool:
    """Whether something is mounted at `path`, asked of the path walk itself; never touches what is mounted there.

    Raises FileNotFoundError. A mount table as text can miss entries while it changes; this cannot.
    """
    parent, name = os.path.split(os.fspath(path))
    directory = os.open(parent or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.close(openat2(directory, name, os.O_PATH | os.O_NOFOLLOW, resolve=RESOLVE_NO_XDEV | RESOLVE_NO_SYMLINKS))
    except OSError as error:
        if error.errno == errno.ELOOP:  # a symbolic link: nothing can be mounted on the link itself
            return False
        if error.errno != errno.EXDEV:
            raise
        return True
    finally:
        os.close(directory)
    return False


def unmount_beneath(path: str | os.PathLike[str]) -> None:
    """Unmount everything at `path` and below it, what was mounted last first.

    Raises OSError (EBUSY: a process of this namespace has something open there). Nothing is detached lazily: such a
    mount is gone from sight while it is still written to.
    """
    for mount in reversed(mounts_beneath(path)):
        try:
            umount2(mount.point, UMOUNT_NOFOLLOW)
        except OSError as error:
            # Below a shared mount, unmounting one takes the copies along that propagation has made of it.
            if error.errno != errno.EINVAL or any(left.id == mount.id for left in mounts()):
                raise
