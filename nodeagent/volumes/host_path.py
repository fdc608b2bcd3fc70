"""hostPath: a path of the node that is checked, made if the pod says so, and never removed: it is not the pod's."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

from nodeagent.volumes.deadline import LOCAL, within
from nodeagent.volumes.plan import HostPath

_KINDS: dict[str, tuple[Callable[[int], bool], str]] = {
    "DirectoryOrCreate": (stat.S_ISDIR, "a directory"),
    "Directory": (stat.S_ISDIR, "a directory"),
    "FileOrCreate": (stat.S_ISREG, "a file"),
    "File": (stat.S_ISREG, "a file"),
    "Socket": (stat.S_ISSOCK, "a unix socket"),
    "CharDevice": (stat.S_ISCHR, "a character device"),
    "BlockDevice": (stat.S_ISBLK, "a block device"),
}


class NotAsPromised(Exception):
    """What is at the path is not what the pod says should be there."""


async def mount(volume: HostPath) -> Path:
    """The path. Raises NotAsPromised, OSError, TimeoutError when its file system hangs."""
    if volume.type:
        await within(LOCAL, _check, Path(volume.path), volume.type)
    return Path(volume.path)


def _check(path: Path, kind: str) -> None:
    fits, words = _KINDS[kind]
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        if kind == "DirectoryOrCreate":
            path.mkdir(mode=0o755, parents=True, exist_ok=True)
        elif kind == "FileOrCreate":
            _make_file(path)
        else:
            remedy = (
                f"make it, or use type {kind}OrCreate" if kind in ("Directory", "File") else "is its owner running?"
            )
            raise NotAsPromised(f"{path} does not exist on this node, type {kind} wants {words}: {remedy}") from None
        return
    if not fits(mode):
        raise NotAsPromised(f"{path} on this node is {_named(mode)}, type {kind} wants {words}")


def _make_file(path: Path) -> None:
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644))
    except FileNotFoundError:
        raise NotAsPromised(
            f"{path} cannot be made: its directory does not exist on this node; make that first"
        ) from None


def _named(mode: int) -> str:
    names = [words for fits, words in _KINDS.values() if fits(mode)]
    return names[0] if names else "something else"
