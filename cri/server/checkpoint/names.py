"""Names of files in CRIU's images, asked before CRIU opens, binds, or makes anything by them.

CRIU does that as root, with descriptors of the host's directories in its table, and follows every link: a file called
/proc/self/fd/126/../../../etc/shadow was the host's. So a name must be one that the kernel gives to an open file:
absolute, without ".", ".." and links. What was put in its way since is found afterwards (holdings.py). Where the
container's user is not almighty, the name must lead to what that user may open as well.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from cri.proto import criu_pb2 as criu
from cri.server.checkpoint.entries import entries, packets
from cri.server.checkpoint.privileges import Bounds
from cri.server.errors import InvalidRequest
from runtime.linux.paths import open_inside

OUTSIDE = 1  # unix_sk_entry.uflags: USK_EXTERN
#: open(2) flags that no open file has (fcntl(2), F_GETFL), and that would change what is there.
_CHANGING = os.O_CREAT | os.O_EXCL | os.O_TRUNC
#: Links of procfs that lead anywhere; a process that is not there yet cannot be asked about them.
_MAGIC = re.compile(r"/proc/[^/]+/(task/[^/]+/)?(fd|map_files|ns|root|cwd|exe)(/.*)?")
_NODES = (stat.S_IFBLK, stat.S_IFCHR)


def check_names(images: Path, tree: int, bounds: Bounds) -> None:
    """`tree` is an fd of the staged root file system. Blocks; raises InvalidRequest, OSError."""
    for file in entries(images / "files.img", criu.File):
        if file.HasField("reg"):
            if file.reg.flags & _CHANGING:
                raise InvalidRequest(f"the checkpoint opens {file.reg.name[:200]!a} in a way that changes it")
            _check(file.reg.name, tree, bounds, _wanted(file.reg.flags))
        for watch in file.ify.wd:
            if watch.f_handle.path:
                _check(watch.f_handle.path, tree, bounds, os.R_OK)
        if file.HasField("usk"):
            _check_socket(file.usk, tree, bounds)
    for packet in packets(images / "sk-queues.img"):
        if packet.scm:
            raise InvalidRequest(
                "the checkpoint has descriptors on their way through a socket; nobody can look at them"
            )
    for path in images.glob("ghost-file-*.img"):
        _check_ghost(next(entries(path, criu.GhostFile)), bounds)


def _wanted(flags: int) -> int:
    return {os.O_RDONLY: os.R_OK, os.O_WRONLY: os.W_OK}.get(flags & os.O_ACCMODE, os.R_OK | os.W_OK)


def _check_socket(socket: criu.UnixSocket, tree: int, bounds: Bounds) -> None:
    if socket.uflags & OUTSIDE and not bounds.almighty:
        raise InvalidRequest("the checkpoint has a connection to outside of the container, which CRIU makes as root")
    name = os.fsdecode(socket.name.rstrip(b"\0"))
    if not name or name.startswith("\0"):
        return  # it has none, or an abstract one
    path = name if name.startswith("/") else f"{socket.name_dir.rstrip('/')}/{name}"
    _check(path, tree, bounds, os.R_OK | os.W_OK)


def _check_ghost(ghost: criu.GhostFile, bounds: Bounds) -> None:
    if stat.S_IFMT(ghost.mode) in _NODES or ghost.mode & (stat.S_ISUID | stat.S_ISGID):
        raise InvalidRequest("the checkpoint makes a device or a program with another user's rights")
    if not bounds.almighty and (ghost.uid != bounds.uid or ghost.gid not in bounds.groups):
        raise InvalidRequest(f"the checkpoint makes a file of {ghost.uid}:{ghost.gid}, who is not the container's user")


def _check(name: str, tree: int, bounds: Bounds, wanted: int) -> None:
    words = name.split("/")[1:] if name != "/" else []
    if not name.startswith("/") or "\0" in name or any(word in ("", ".", "..") for word in words):
        raise InvalidRequest(f"the checkpoint has a file {name[:200]!a}, which is no name of an open file")
    if _MAGIC.fullmatch(name):
        raise InvalidRequest(f"the checkpoint has a file {name[:200]!a}, which is a link to somewhere else")
    for place in _upwards(name):
        try:
            fd = open_inside(tree, place, os.O_PATH | os.O_CLOEXEC, follow=False)
        except (FileNotFoundError, NotADirectoryError):
            continue  # it had been removed; CRIU makes it again, below what is there
        except OSError as error:
            raise InvalidRequest(f"the checkpoint has a file {name[:200]!a}: {error.strerror}") from error
        try:
            if not bounds.may(os.fstat(fd), wanted if place == name else os.W_OK):
                raise InvalidRequest(f"the checkpoint has a file {name[:200]!a}, which its user may not open so")
        finally:
            os.close(fd)
        return


def _upwards(name: str) -> Iterator[str]:
    """The name, then the directories above it; "/" is always there."""
    while name != "/":
        yield name
        name = os.path.dirname(name)
    yield name
