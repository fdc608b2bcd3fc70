"""Settling: what an extracted layer needs to know of the layers below it before overlayfs can stack them.

1. hard links to files that only a lower layer has: the file is copied up, as overlayfs would do it
2. whiteouts and opaque directories, in overlayfs's own form, where there is something to hide
3. attributes of directories: those of the archive, or, where it went through a directory without naming it, those of
   the same directory below; with plain defaults such a layer would take the sticky bit from /tmp
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from images.errors import MalformedImage
from images.limits import Limits
from images.tar.header import Entry
from images.unpack.attributes import set_xattrs, xattrs_of
from images.unpack.extract import Extracted, in_blocks, link
from images.unpack.merged import OPAQUE_XATTR, Merged
from images.unpack.names import shown
from images.unpack.tree import Tree

COPY = 16 << 20


class Settling:
    """One layer's; run() once, before anything else looks at the layer."""

    def __init__(self, tree: Tree, extracted: Extracted, below: Merged, limits: Limits) -> None:
        self._tree = tree
        self._extracted = extracted
        self._below = below
        self._limits = limits
        #: Below these nothing of the lower layers shows any more.
        self._hidden = set(extracted.opaque)

    def run(self) -> None:
        """Raises MalformedImage for a hard link to nothing, and OSError."""
        for path, target in self._extracted.links:
            self._tree.trim()
            self._link(path, target)
        for path in sorted(self._extracted.opaque):
            self._tree.trim()
            self._hide_all(path)
        for path in sorted(self._extracted.whiteouts):  # parents before children
            self._tree.trim()
            if not any(above in self._hidden for above in _above(path)):
                self._whiteout(path)
        self._attributes()

    def _link(self, path: bytes, target: bytes) -> None:
        source, name = self._tree.parent(target)
        try:
            os.stat(name, dir_fd=source, follow_symlinks=False)
        except FileNotFoundError:
            self._copy_up(target)
        parent, base = self._tree.parent(path)
        link(*self._tree.parent(target), parent, base)

    def _copy_up(self, path: bytes) -> None:
        with self._below.find(path) as found:
            status = os.fstat(found) if found is not None else None
            if found is None or status is None or not stat.S_ISREG(status.st_mode):
                raise MalformedImage(f"a hard link to {shown(path)}, which no layer has as a file")
            parent, base = self._tree.parent(path)
            new = os.open(base, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=parent)
            try:
                self._copy(found, new, status)
            finally:
                os.close(new)

    def _copy(self, found: int, new: int, status: os.stat_result) -> None:
        readable = os.open(f"/proc/self/fd/{found}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            while os.copy_file_range(readable, new, COPY):
                pass
        finally:
            os.close(readable)
        _set(new, status, xattrs_of(found), self._limits)
        self._extracted.inodes += 1
        self._extracted.bytes += in_blocks(status.st_size)

    def _whiteout(self, path: bytes) -> None:
        """A directory that is gone, or no directory now: archives may mark each file of it as gone, too (umoci)."""
        for above in reversed(tuple(_above(path))):
            parent, base = self._tree.parent(above)
            try:
                status = os.stat(base or b".", dir_fd=parent, follow_symlinks=False)
            except FileNotFoundError:
                break
            if not stat.S_ISDIR(status.st_mode):
                self._hidden.add(above)
                return
        self._hide(path)

    def _hide(self, path: bytes) -> None:
        """A whiteout with nothing below it would show up in listings: overlayfs looks for them where it merges only."""
        if not self._below.exists(path):
            return
        parent, base = self._tree.parent(path)
        try:
            os.mknod(base, stat.S_IFCHR, 0, dir_fd=parent)
            self._extracted.inodes += 1
        except FileExistsError:
            self._make_opaque(path)  # removed and made anew by the same layer; a no-op unless it is a directory
            self._hidden.add(path)

    def _hide_all(self, path: bytes) -> None:
        if path:
            if self._below.exists(path):
                self._tree.directory(path)
                self._make_opaque(path)
            return
        for name in self._below.names():  # overlayfs merges root directories whatever their attributes say
            self._hide(name)

    def _make_opaque(self, path: bytes) -> None:
        fd = self._tree.existing(path)
        if fd is not None:
            try:
                os.setxattr(fd, OPAQUE_XATTR, b"y")
            finally:
                os.close(fd)

    def _attributes(self) -> None:
        """Children before parents, so that nothing changes a directory's times after they are set."""
        named = self._extracted.directories
        paths = named.keys() | self._tree.implicit | {b""}
        for path in sorted(paths, reverse=True):
            self._tree.trim()
            fd = self._tree.existing(path)
            if fd is None:
                continue
            try:
                if path in named:
                    _set_from_entry(fd, named[path], self._limits)
                else:
                    self._set_from_below(fd, path)
            finally:
                os.close(fd)

    def _set_from_below(self, fd: int, path: bytes) -> None:
        with self._below.find(path) as found:
            status = os.fstat(found) if found is not None else None
            if found is not None and status is not None and stat.S_ISDIR(status.st_mode):
                _set(fd, status, xattrs_of(found), self._limits)
            else:
                os.fchmod(fd, 0o755)  # mkdir(2) applied the daemon's umask


def _above(path: bytes) -> Iterator[bytes]:
    """The directories that a path is in, the root among them."""
    while path:
        path = path.rpartition(b"/")[0]
        yield path


def _set_from_entry(fd: int, entry: Entry, limits: Limits) -> None:
    os.fchown(fd, entry.uid, entry.gid)
    os.fchmod(fd, entry.mode)
    if entry.xattrs:
        set_xattrs(fd, entry.xattrs, limits)
    os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))


def _set(fd: int, status: os.stat_result, xattrs: dict[str, bytes], limits: Limits) -> None:
    os.fchown(fd, status.st_uid, status.st_gid)
    os.fchmod(fd, stat.S_IMODE(status.st_mode))
    set_xattrs(fd, xattrs, limits)
    os.utime(fd, ns=(status.st_atime_ns, status.st_mtime_ns))
