"""What a container has changed in its root file system, as a layer (image-spec, layer.md): written and laid down again.

The writable layer is overlayfs's upper directory: whiteouts are character devices 0:0 and opaque directories have an
attribute; in the tar both are `.wh.` entries, as in any layer, so unpacking is that of layers with all its suspicion.
"""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from images.errors import TooLarge, disk_full_explained
from images.limits import Limits
from images.tar.pax import XATTR
from images.tar.reader import TarReader
from images.tar.stream import ByteStream
from images.unpack.extract import Extractor
from images.unpack.merged import Merged, is_opaque, is_whiteout
from images.unpack.settle import Settling
from images.unpack.tree import Tree

CHUNK = 1 << 20
#: Attributes of overlayfs itself mean nothing elsewhere.
PRIVATE = "trusted.overlay."
TYPES = {
    stat.S_IFREG: tarfile.REGTYPE,
    stat.S_IFDIR: tarfile.DIRTYPE,
    stat.S_IFLNK: tarfile.SYMTYPE,
    stat.S_IFCHR: tarfile.CHRTYPE,
    stat.S_IFBLK: tarfile.BLKTYPE,
    stat.S_IFIFO: tarfile.FIFOTYPE,
}


def write_changes(upper: Path, out: IO[bytes], limit: int) -> None:
    """Write the layer of an upper directory that nobody changes meanwhile. Sockets are left out, as in every layer.

    Raises TooLarge beyond `limit` bytes of files, OSError.
    """
    links: dict[int, str] = {}
    left = limit
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path, directories, files, directory in os.fwalk(upper, follow_symlinks=False):
            above = os.path.relpath(path, upper)
            if above == ".":
                above = ""
            if is_opaque(directory):
                archive.addfile(tarfile.TarInfo(os.path.join(above, ".wh..wh..opq")))
            for name in sorted([*directories, *files]):
                status = os.stat(name, dir_fd=directory, follow_symlinks=False)
                # Before it is written: what is a hole here are zeros there, and a hole costs nobody anything.
                if status.st_size > left:
                    raise TooLarge(f"the container has written more than {limit} bytes of files")
                left -= _add(archive, directory, name, os.path.join(above, name), status, links)


def _add(
    archive: tarfile.TarFile, directory: int, name: str, path: str, status: os.stat_result, links: dict[int, str]
) -> int:
    """Add one entry; returns how many bytes of content it had."""
    if is_whiteout(status):
        above, base = os.path.split(path)
        archive.addfile(tarfile.TarInfo(os.path.join(above, f".wh.{base}")))
        return 0
    kind = TYPES.get(stat.S_IFMT(status.st_mode))
    if kind is None:
        return 0
    entry = tarfile.TarInfo(path)
    entry.type, entry.mode = kind, stat.S_IMODE(status.st_mode)
    entry.uid, entry.gid, entry.mtime = status.st_uid, status.st_gid, status.st_mtime
    entry.devmajor, entry.devminor = os.major(status.st_rdev), os.minor(status.st_rdev)
    if kind == tarfile.SYMTYPE:
        entry.linkname = os.readlink(name, dir_fd=directory)
    entry.pax_headers = _xattrs(f"/proc/self/fd/{directory}/{name}")
    if kind != tarfile.REGTYPE:
        archive.addfile(entry)
        return 0
    if status.st_nlink > 1 and (first := links.setdefault(status.st_ino, path)) != path:
        entry.type, entry.linkname = tarfile.LNKTYPE, first
        archive.addfile(entry)
        return 0
    entry.size = status.st_size
    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    with os.fdopen(fd, "rb") as content:
        archive.addfile(entry, content)
    return entry.size


def _xattrs(path: str) -> dict[str, str]:
    """As PAX headers (star's, which every layer tool reads); values are bytes, which tarfile writes as UTF-8."""
    found: dict[str, str] = {}
    for name in os.listxattr(path, follow_symlinks=False):
        if not name.startswith(PRIVATE):
            value = os.getxattr(path, name, follow_symlinks=False)
            found[XATTR.decode() + name] = value.decode("utf-8", "surrogateescape")
    return found


def lay_down(tar: int, upper: Path, below: Sequence[Path], limits: Limits) -> None:
    """Unpack the layer behind an fd into a fresh upper directory above the layers `below`, the top one first.

    Raises ImageError for a layer that is hostile, malformed or too large, OSError.
    """
    tree = Tree(upper)
    try:
        with disk_full_explained("unpacking a checkpoint's files"):
            stream = ByteStream(_chunks(tar, limits.unpacked))
            extracted = Extractor(tree, TarReader(stream, limits), limits).run()
            Settling(tree, extracted, Merged(below), limits).run()
    finally:
        tree.close()


def _chunks(fd: int, left: int) -> Iterator[bytes]:
    while chunk := os.read(fd, CHUNK):
        left -= len(chunk)
        if left < 0:
            raise TooLarge("a checkpoint's files take more than is allowed")
        yield chunk
