"""emptyDir: a directory of the pod's own, on the node's disk or in memory, that goes when the pod goes."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nodeagent.pods import quantity
from nodeagent.volumes.deadline import LOCAL, within
from nodeagent.volumes.layout import EMPTY_DIR, Layout, aside, make_private
from nodeagent.volumes.plan import EmptyDir, Group
from runtime.linux import mountapi, mounts
from runtime.linux.failpoints import failpoint
from runtime.linux.ledger import Effect, Ledger
from runtime.linux.mounttable import is_mount_point, unmount_beneath
from runtime.linux.trees import remove_tree

#: Seconds: a directory with millions of files takes its time.
REMOVAL = 600.0
#: The mode of a directory that is made and not yet handed out; nobody else gives one to a directory. From then on mode
#: and group are the containers': what they change stays, however often the pod's volumes are mounted again.
UNFINISHED = 0o1700

FAILPOINTS = (
    "agent.empty_dir.recorded",
    "agent.empty_dir.made",
    "agent.empty_dir.mounted",
    "agent.empty_dir.unmounted",
    "agent.empty_dir.set_aside",
    "agent.empty_dir.removed",
)


async def mount(volume: EmptyDir, uid: str, layout: Layout, ledger: Ledger) -> Path:
    """The directory, as it was if it is there already. Raises OSError, TimeoutError."""
    path = layout.volume(uid, EMPTY_DIR, volume.name)
    effects = [layout.effect(uid), Effect("dir", str(path), uid, {"volume": volume.name})]
    if volume.in_memory:
        effects.append(Effect("mount", str(path), uid, {"volume": volume.name, "fstype": "tmpfs"}))
    ledger.record(*effects)
    failpoint("agent.empty_dir.recorded")
    await within(LOCAL, _make, path, volume)
    return path


def _make(path: Path, volume: EmptyDir) -> None:
    make_private(path.parent)
    with contextlib.suppress(FileExistsError):
        path.mkdir(UNFINISHED)
    failpoint("agent.empty_dir.made")
    if volume.in_memory and not is_mount_point(path):
        _attach_tmpfs(path, volume.size_limit)
        failpoint("agent.empty_dir.mounted")
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if stat.S_IMODE(os.fstat(fd).st_mode) == UNFINISHED:
            _hand_out(fd, volume.group)
    finally:
        os.close(fd)


def _hand_out(fd: int, group: Group | None) -> None:
    """For every container of the pod, whichever user it runs as. The mode comes last: it says that all is done."""
    if group is not None:
        os.fchown(fd, -1, group.gid)
    os.fchmod(fd, 0o777 if group is None else 0o777 | stat.S_ISGID)


def _attach_tmpfs(path: Path, size: int) -> None:
    """Without a size the kernel's own limit holds: half of the node's memory (tmpfs(5))."""
    options = [("mode", f"{UNFINISHED:o}"), *([("size", str(size))] if size else [])]
    fd = mounts.filesystem("tmpfs", "tmpfs", options)
    try:
        mountapi.move_mount_at(fd, str(path))
    finally:
        os.close(fd)


def limits(document: Mapping[str, Any]) -> dict[str, int]:
    """The sizeLimit in bytes, 0 for none, of each emptyDir of a v1.Pod that is on the node's disk, by name."""
    sources = {volume["name"]: volume.get("emptyDir") for volume in document["spec"].get("volumes") or []}
    return {
        name: quantity.whole(source.get("sizeLimit") or 0)
        for name, source in sources.items()
        if source is not None and source.get("medium") != "Memory"
    }


async def unmount(path: Path, ledger: Ledger) -> None:
    """Remove the directory with its content; one that is gone is no error. Raises OSError, TimeoutError.

    What is mounted in it is unmounted first (a container may have mounted something there that propagated to the
    node); if that fails, nothing is removed. The rest goes under another name: the pod may come back, and nobody can
    end a thread that still removes millions of files of its former life.
    """
    doomed = aside(path)
    await within(LOCAL, unmount_beneath, path)
    failpoint("agent.empty_dir.unmounted")
    ledger.strike(("mount", str(path)))
    # Of an attempt that was cut off.
    await within(REMOVAL, remove_tree, doomed)
    await within(LOCAL, _set_aside, path, doomed)
    failpoint("agent.empty_dir.set_aside")
    await within(REMOVAL, remove_tree, doomed)
    failpoint("agent.empty_dir.removed")
    ledger.strike(("dir", str(path)))


def _set_aside(path: Path, doomed: Path) -> None:
    if path.is_symlink():
        raise OSError(errno.ELOOP, "is a link, which nobody here has made", str(path))
    with contextlib.suppress(FileNotFoundError):
        path.rename(doomed)
