"""Extraction: one layer's tar stream into its own directory, without a look at any other layer.

Every file is made new (O_EXCL) in a directory that is held by fd, so nothing that the archive made before can be
written through: a name that exists is removed first. Directories get their attributes at the end, in settle.py,
because extracting into them would change their times, and a setgid bit or a default ACL the files in them.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, field

from images.errors import FULL, DiskFull, ImageError, MalformedImage, TooLarge, UnsafeLayer
from images.limits import Limits
from images.tar.header import BLOCK_DEVICE, CHAR, DIRECTORY, FIFO, HARDLINK, REGULAR, SYMLINK, Entry
from images.tar.reader import TarReader
from images.unpack.attributes import set_xattrs
from images.unpack.names import AUFS, OPAQUE, WHITEOUT, clean, is_mark, shown, whiteout_target
from images.unpack.tree import Tree

NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
NODE_TYPES = {CHAR: stat.S_IFCHR, BLOCK_DEVICE: stat.S_IFBLK, FIFO: stat.S_IFIFO}
FS_BLOCK = 4096


@dataclass(slots=True)
class Extracted:
    """What is left to settle, and what the layer costs: `bytes` as blocks of 4 KiB, `inodes` with directories."""

    directories: dict[bytes, Entry] = field(default_factory=dict)
    whiteouts: set[bytes] = field(default_factory=set)
    opaque: set[bytes] = field(default_factory=set)
    #: Hard links (new name, target) whose target is not in this layer.
    links: list[tuple[bytes, bytes]] = field(default_factory=list)
    bytes: int = 0
    inodes: int = 0


class Extractor:
    """Extracts one archive into a Tree."""

    def __init__(self, tree: Tree, reader: TarReader, limits: Limits) -> None:
        self._tree = tree
        self._reader = reader
        self._limits = limits
        self._done = Extracted()
        self._handlers: dict[bytes, Callable[[Entry, bytes], None]] = {
            REGULAR: self._regular,
            DIRECTORY: self._directory,
            SYMLINK: self._symlink,
            HARDLINK: self._hardlink,
            **dict.fromkeys(NODE_TYPES, self._node),
        }

    def run(self) -> Extracted:
        """Extract all entries; raises ImageError, or OSError with the entry in a note. What is there then stays."""
        left = self._limits.entries
        for entry in self._reader:
            left -= 1
            if left < 0:
                raise TooLarge(f"more than {self._limits.entries} entries in one layer")
            self._tree.trim()
            try:
                self._extract(entry)
            except OSError as error:
                if better := _as_image_error(error, entry.name):
                    raise better from error
                error.add_note(f"while unpacking {shown(entry.name)}")
                raise
        self._done.inodes += len(self._done.directories) + len(self._tree.implicit)
        return self._done

    def _extract(self, entry: Entry) -> None:
        path = clean(entry.name, self._limits)
        handler = self._handlers.get(entry.type)
        if handler is None:
            raise MalformedImage(f"an archive member of type {entry.type!r}: {shown(path)}")
        if WHITEOUT in path and is_mark(path):
            self._whiteout(path)
        elif path:
            handler(entry, path)
        elif entry.type == DIRECTORY:
            self._done.directories[path] = entry
        else:
            raise UnsafeLayer("an archive member that would replace the root directory")

    def _regular(self, entry: Entry, path: bytes) -> None:
        fd = self._create(path)
        try:
            if entry.segments is None:
                for piece in self._reader.data():
                    write_all(fd, piece)
            else:
                self._sparse(fd, entry)
            if entry.uid or entry.gid:  # it is root's already; directories get their group and setgid bit later
                os.fchown(fd, entry.uid, entry.gid)
            os.fchmod(fd, entry.mode)
            if entry.xattrs:
                set_xattrs(fd, entry.xattrs, self._limits)
            os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))
        finally:
            os.close(fd)
        self._done.inodes += 1
        self._done.bytes += in_blocks(entry.size)

    def _create(self, path: bytes) -> int:
        parent, base = self._tree.parent(path)
        try:
            return os.open(base, NEW_FILE, 0o600, dir_fd=parent)
        except FileExistsError:
            self._tree.clear_way(path)
            parent, base = self._tree.parent(path)
            return os.open(base, NEW_FILE, 0o600, dir_fd=parent)

    def _sparse(self, fd: int, entry: Entry) -> None:
        os.ftruncate(fd, entry.sparse_size)
        segments = iter(entry.segments or ())
        offset = left = 0
        for piece in self._reader.data():
            while piece:
                if not left:
                    offset, left = next(segments)
                written = os.pwrite(fd, piece[:left], offset)
                piece, offset, left = piece[written:], offset + written, left - written

    def _directory(self, entry: Entry, path: bytes) -> None:
        self._tree.make_directory(path)
        self._done.directories[path] = entry

    def _symlink(self, entry: Entry, path: bytes) -> None:
        self._make(path, lambda parent, base: os.symlink(entry.linkname, base, dir_fd=parent))
        self._finish_name(entry, path)

    def _node(self, entry: Entry, path: bytes) -> None:
        kind, device = NODE_TYPES[entry.type], os.makedev(entry.devmajor, entry.devminor)
        self._make(path, lambda parent, base: os.mknod(base, kind | 0o600, device, dir_fd=parent))
        self._finish_name(entry, path)

    def _finish_name(self, entry: Entry, path: bytes) -> None:
        """Attributes of what cannot be opened without effect (devices, FIFOs) or at all (links)."""
        parent, base = self._tree.parent(path)
        os.chown(base, entry.uid, entry.gid, dir_fd=parent, follow_symlinks=False)
        if entry.type != SYMLINK:
            os.chmod(base, entry.mode, dir_fd=parent)
        if entry.xattrs:
            set_xattrs(f"/proc/self/fd/{parent}/{os.fsdecode(base)}", entry.xattrs, self._limits)
        os.utime(base, ns=(entry.mtime_ns, entry.mtime_ns), dir_fd=parent, follow_symlinks=False)
        self._done.inodes += 1

    def _hardlink(self, entry: Entry, path: bytes) -> None:
        """The linked file has its attributes already: those of a link entry would change it (CVE-2021-32760)."""
        target = clean(entry.linkname, self._limits)
        if target == path:
            return
        try:
            self._make(path, lambda parent, base: link(*self._tree.parent(target), parent, base))
        except FileNotFoundError:
            self._done.links.append((path, target))

    def _whiteout(self, path: bytes) -> None:
        above, slash, base = path.rpartition(b"/")
        if base == OPAQUE:
            self._done.opaque.add(above)
        elif base.startswith(WHITEOUT) and not base.startswith(AUFS):
            self._done.whiteouts.add(above + slash + whiteout_target(base))

    def _make(self, path: bytes, make: Callable[[int, bytes], None]) -> None:
        try:
            make(*self._tree.parent(path))
        except FileExistsError:
            self._tree.clear_way(path)
            make(*self._tree.parent(path))


def in_blocks(size: int) -> int:
    """What a file of so many bytes takes on disk."""
    return -(-size // FS_BLOCK) * FS_BLOCK


def link(source: int, name: bytes, parent: int, base: bytes) -> None:
    """linkat(2) of the name itself: a symbolic link is linked, not what it points to."""
    os.link(name, base, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)


def write_all(fd: int, data: memoryview) -> None:
    """write(2) until everything is written: a disk that fills up takes a part first and fails after it."""
    written = os.write(fd, data)
    while written < len(data):
        written += os.write(fd, data[written:])


def _as_image_error(error: OSError, name: bytes) -> ImageError | None:
    """The kernel's error as one about the image, where it is one."""
    if error.errno in FULL:
        return DiskFull(f"no space left while unpacking {shown(name)}: free some, or remove unused images")
    if error.errno == errno.ENAMETOOLONG:
        return UnsafeLayer(f"a name that is too long for the filesystem: {shown(name)}")
    return None
