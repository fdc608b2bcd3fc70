"""The archive of a checkpoint: an uncompressed tar, readable by its owner only, that appears whole or not at all.

What comes back in one is hostile: it is read like a layer of an image, with every header bounded; its entries are
regular files of known names and nothing else, limited in number and size, and each is written as a new file. A link in
an archive was a way to read the host's files (CVE-2026-53489).
"""

from __future__ import annotations

import errno
import os
import re
import stat
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from cri.server.checkpoint.documents import CONFIG, LIMIT, SPEC, STATUS
from cri.server.errors import AlreadyExists, Exhausted, InvalidRequest, NotFound
from images.errors import FULL, MalformedImage, TooLarge
from images.limits import Limits
from images.tar.header import DIRECTORY, REGULAR, Entry
from images.tar.reader import TarReader
from images.tar.stream import ByteStream
from runtime.linux.files import sync_directory

IMAGES = "checkpoint"
ROOTFS = "rootfs-diff.tar"
DUMP_LOG, STATISTICS = "dump.log", "stats-dump"
ENTRIES = 100_000
CHUNK = 1 << 20
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_IMAGE = re.compile(r"checkpoint/[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


def check_location(location: str) -> None:
    """Whether an archive may be written there: absolute, in a directory that exists, over nothing that is there."""
    if not location.startswith("/") or location.endswith("/") or "\0" in location:
        raise InvalidRequest(f"location {location[:200]!r} is no absolute path of a file")
    if os.path.lexists(location):
        raise AlreadyExists(f"{location[:200]} exists; a checkpoint overwrites nothing")
    if not os.path.isdir(os.path.dirname(location)):
        raise NotFound(f"the directory of {location[:200]} does not exist")


def write_archive(
    partial: str, location: str, documents: Mapping[str, bytes], place: Path, images: Path, limit: int
) -> int:
    """Write `documents`, the files in `place` and those in `images` to `partial`, then call it `location`: its size.

    Raises AlreadyExists, Exhausted for a full disk or an archive beyond `limit` bytes, OSError. `partial` stays.
    """
    try:
        fd = os.open(partial, _NEW, 0o600)
        with os.fdopen(fd, "wb") as out, tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
            _write_documents(documents, place)
            for path, name in [*_files(place, ""), *_files(images, f"{IMAGES}/")]:
                _add_file(archive, path, name)
                if out.tell() > limit:
                    raise Exhausted(f"the checkpoint takes more than the limit of {limit} bytes ([checkpoint] limit)")
            archive.close()
            out.flush()
            os.fsync(out.fileno())
            size = out.tell()
        os.link(partial, location, follow_symlinks=False)  # unlike a rename it overwrites nothing
        sync_directory(os.path.dirname(location))
    except FileExistsError as error:
        raise AlreadyExists(f"{location} exists; a checkpoint overwrites nothing") from error
    except OSError as error:
        if error.errno in FULL:
            raise Exhausted(f"no space left for the checkpoint {location}: {error.strerror}") from error
        raise
    return size


def _write_documents(documents: Mapping[str, bytes], place: Path) -> None:
    for name, data in documents.items():
        path = place / name
        path.write_bytes(data)
        path.chmod(0o600)


def _files(directory: Path, prefix: str) -> Iterator[tuple[Path, str]]:
    for path in sorted(directory.iterdir()):
        if path.is_file() and not path.is_symlink():
            yield path, prefix + path.name


def _add_file(archive: tarfile.TarFile, path: Path, name: str) -> None:
    entry = tarfile.TarInfo(name)
    with path.open("rb") as content:
        status = os.fstat(content.fileno())
        entry.size, entry.mtime, entry.mode = status.st_size, int(status.st_mtime), 0o600
        archive.addfile(entry, content)


def open_archive(path: str) -> int:
    """An fd of an archive; raises InvalidRequest unless it is a regular file and no link, NotFound."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise NotFound(f"there is no checkpoint at {path[:200]}") from error
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise InvalidRequest(f"{path[:200]} is a symbolic link, not a checkpoint archive") from error
        raise
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise InvalidRequest(f"{path[:200]} is not a regular file")
    return fd


def unpack_archive(fd: int, place: Path, images: Path, limit: int) -> None:
    """Write the archive's files into `place`, and CRIU's into `images`. Other known files are passed over.

    Raises InvalidRequest for an entry that is no plain file or has a name that no checkpoint has, Exhausted.
    """
    left, count = limit, 0
    try:
        with os.fdopen(os.dup(fd), "rb") as source:
            reader = TarReader(ByteStream(iter(lambda: source.read(CHUNK), b"")), Limits())
            for entry in reader:
                count += 1
                left -= entry.size
                if count > ENTRIES or left < 0:
                    raise Exhausted(f"the checkpoint holds more than {ENTRIES} files or {limit} bytes")
                target = _target(entry, place, images)
                if target is not None:
                    _write(reader, target)
    except (MalformedImage, TooLarge) as error:
        raise InvalidRequest(f"the checkpoint is no tar archive: {error}") from error
    except OSError as error:
        if error.errno in FULL:
            raise Exhausted(f"no space left for unpacking the checkpoint: {error.strerror}") from error
        raise


def _target(entry: Entry, place: Path, images: Path) -> Path | None:
    name = os.fsdecode(entry.name).removeprefix("./")
    if entry.type == DIRECTORY and name.rstrip("/") in ("", ".", IMAGES):
        return None
    if entry.type != REGULAR or entry.segments is not None:
        raise InvalidRequest(f"the checkpoint's entry {name[:200]!a} is no plain file")
    if name in (CONFIG, SPEC, STATUS) and entry.size > LIMIT:
        raise InvalidRequest(f"the checkpoint's {name} takes {entry.size} bytes, more than {LIMIT}")
    if name in (CONFIG, SPEC, ROOTFS):
        return place / name
    if _IMAGE.fullmatch(name):
        return images / name.removeprefix(f"{IMAGES}/")
    if "/" in name or name.startswith("."):
        raise InvalidRequest(f"the checkpoint has an entry {name[:200]!a}, which no checkpoint has")
    return None  # logs, statistics, status: nothing that a restored container needs, or may bring


def _write(reader: TarReader, target: Path) -> None:
    try:
        fd = os.open(target, _NEW, 0o600)
    except FileExistsError as error:
        raise InvalidRequest(f"the checkpoint holds {target.name!a} twice") from error
    with os.fdopen(fd, "wb") as out:
        for piece in reader.data():
            out.write(piece)
