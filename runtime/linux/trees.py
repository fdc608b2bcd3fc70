"""Directory trees that others have filled: removed, or given to a group, without ever leaving them.

What stands in such a tree is hostile: symbolic links to elsewhere, mount points, a million files, directories nested
deeper than the stack or the fd table. So a tree is walked by fds that are opened beneath each other without following
links or crossing mounts (openat2(2)), in bounded memory and with a bounded number of fds.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import stat
from collections.abc import Generator

from runtime.linux.mounttable import mounts_beneath
from runtime.linux.syscalls import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, RESOLVE_NO_XDEV, openat2

STAY_INSIDE = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
#: Levels that are walked with one fd each; what is deeper is first lifted to the top.
DEPTH_LIMIT = 64
BATCH = 4096


def remove_tree(path: str | os.PathLike[str]) -> None:
    """Remove a directory with all that is in it; one that is not there, or goes while we are at it, is no error.

    Raises OSError with EBUSY, before anything is removed, when something is mounted at or below it, and with EXDEV
    when a mount turns up on the way: no file of another filesystem, or of another mount of the same one, is touched.
    """
    text = os.path.abspath(path)
    _refuse_mounts(text)
    try:
        top = os.open(text, DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        _Removal(top).run()
        os.rmdir(text)
    except FileNotFoundError:
        return
    except OSError as error:
        error.add_note(f"while removing the tree {text}; nothing outside it was touched")
        raise
    finally:
        os.close(top)


def _refuse_mounts(path: str) -> None:
    found = mounts_beneath(path)
    if found:
        points = ", ".join(mount.point for mount in found[:5])
        raise OSError(errno.EBUSY, f"not removed, since something is mounted there: {points}", path)


class _Removal:
    """Empties one directory, depth first; what lies deeper than DEPTH_LIMIT is renamed into it, for a later turn.

    Two may be at the same tree: whoever comes second to a name goes on with the next.
    """

    def __init__(self, top: int) -> None:
        self._top = top
        self._lifted = 0

    def run(self) -> None:
        self._empty(self._top, 0)

    def _empty(self, directory: int, depth: int) -> None:
        while batch := _entries(directory):
            for name, is_directory in batch:
                with contextlib.suppress(FileNotFoundError):
                    self._remove(directory, name, is_directory, depth)

    def _remove(self, directory: int, name: str, is_directory: bool, depth: int) -> None:
        if not is_directory:
            os.unlink(name, dir_fd=directory)
        elif depth < DEPTH_LIMIT:
            self._empty_child(directory, name, depth)
        else:
            self._lift(directory, name)

    def _empty_child(self, directory: int, name: str, depth: int) -> None:
        child = openat2(directory, name, DIRECTORY, resolve=STAY_INSIDE)
        try:
            self._empty(child, depth + 1)
        finally:
            os.close(child)
        os.rmdir(name, dir_fd=directory)

    def _lift(self, directory: int, name: str) -> None:
        self._lifted += 1
        os.rename(name, f".removing-{os.getpid()}-{self._lifted}", src_dir_fd=directory, dst_dir_fd=self._top)


def _entries(directory: int) -> list[tuple[str, bool]]:
    """The first names in a directory, with whether they are directories; always from the start of it."""
    with contextlib.closing(_all_entries(directory)) as found:
        return list(itertools.islice(found, BATCH))


def _all_entries(directory: int) -> Generator[tuple[str, bool], None, None]:
    # A fresh open file description: scandir() shares and moves the offset of the fd that it is given.
    again = os.open(".", DIRECTORY | os.O_CLOEXEC, dir_fd=directory)
    try:
        with os.scandir(again) as found:
            for entry in found:
                yield entry.name, entry.is_dir(follow_symlinks=False)
    finally:
        os.close(again)


def give_to_group(path: str | os.PathLike[str], gid: int, *, read_only: bool = False) -> None:
    """Make a tree usable by a group: owner group `gid`, its permissions the owner's, new files inherit it (setgid).

    What Kubernetes' fsGroup asks of a volume. Symbolic links are changed themselves, never followed. Raises OSError
    (EROFS, EXDEV at a mount inside, ENAMETOOLONG beyond DEPTH_LIMIT levels).
    """
    top = os.open(path, DIRECTORY | os.O_CLOEXEC)
    try:
        _give(top, gid, 0o440 if read_only else 0o660, 0)
    finally:
        os.close(top)


def belongs_to_group(path: str | os.PathLike[str], gid: int, *, read_only: bool = False) -> bool:
    """Whether the top directory is as give_to_group() leaves it; OnRootMismatch then takes the rest to be so too."""
    status = os.stat(path, follow_symlinks=False)
    wanted = stat.S_ISGID | (0o550 if read_only else 0o770)
    return status.st_gid == gid and status.st_mode & wanted == wanted


def _give(directory: int, gid: int, bits: int, depth: int) -> None:
    if depth > DEPTH_LIMIT:
        raise OSError(errno.ENAMETOOLONG, f"more than {DEPTH_LIMIT} levels of directories")
    os.fchown(directory, -1, gid)
    os.fchmod(directory, stat.S_IMODE(os.fstat(directory).st_mode) | bits | 0o110 | stat.S_ISGID)
    for name, is_directory in _all_entries(directory):
        if not is_directory:
            _give_file(directory, name, gid, bits)
            continue
        child = openat2(directory, name, DIRECTORY, resolve=STAY_INSIDE)
        try:
            _give(child, gid, bits, depth + 1)
        finally:
            os.close(child)


def _give_file(directory: int, name: str, gid: int, bits: int) -> None:
    os.chown(name, -1, gid, dir_fd=directory, follow_symlinks=False)
    fd = openat2(directory, name, os.O_PATH | os.O_NOFOLLOW, resolve=RESOLVE_BENEATH | RESOLVE_NO_XDEV)
    try:
        status = os.fstat(fd)
        if stat.S_ISREG(status.st_mode):
            # chmod needs a path that leads to exactly this inode: the fd's own (O_PATH fds refuse fchmod).
            os.chmod(f"/proc/self/fd/{fd}", stat.S_IMODE(status.st_mode) | bits)
    finally:
        os.close(fd)
