"""Small files: written so that a crash leaves the old or the new one, read with a limit.

Everything that this project keeps in a file of its own goes through these functions, so the durability
rules (temporary file in the same directory, fsync, rename, fsync of the directory) are written down once.
"""

from __future__ import annotations

import errno
import functools
import os
import stat
from pathlib import Path

BOOT_ID = "/proc/sys/kernel/random/boot_id"


def write_atomic(path: str | os.PathLike[str], data: bytes, mode: int = 0o600, *, durable: bool = True) -> None:
    """Replace `path` by a file that holds `data`; a reader or a crash sees the old content or the new, never a part.

    `durable=False` leaves out the waits for the disk, for what a power failure ends anyway: the state below /run.

    The directory must exist. A symbolic link at `path` is replaced, not followed. Raises OSError; nothing is left then.
    """
    directory, name = os.path.split(os.fspath(path))
    # O_TMPFILE would need linkat + rename anyway, and some overlay kernels lack it.
    temporary = os.path.join(directory or ".", f".{name}.{os.getpid()}.{os.urandom(4).hex()}")
    try:
        _write_new(temporary, data, mode, durable)
        os.rename(temporary, path)
    except BaseException as error:
        _remove_quietly(temporary, error)
        raise
    if durable:
        sync_directory(directory or ".")


def _write_new(path: str, data: bytes, mode: int, durable: bool) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
    try:
        os.fchmod(fd, mode)  # open() applied the umask
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        if durable:
            os.fsync(fd)
    finally:
        os.close(fd)


def _remove_quietly(path: str, reason: BaseException) -> None:
    """Remove a half-made file while `reason` is on its way up; what goes wrong here becomes a note on it."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
    except OSError as error:
        reason.add_note(f"and the temporary file {path} could not be removed: {error}")


def sync_directory(path: str | os.PathLike[str]) -> None:
    """fsync a directory, so that the names in it survive a power cut (fsync(2), NOTES)."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def read_limited(path: str | os.PathLike[str], limit: int) -> bytes:
    """The content of a regular file of at most `limit` bytes (also in /proc and /sys, where st_size is 0).

    Raises OSError with EFBIG when there is more, with EINVAL when `path` is a FIFO, device, socket or directory:
    a name that someone else chose must not be able to block the reader or to feed it for ever.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", os.fspath(path))
        return _read_at_most(fd, limit, os.fspath(path))
    finally:
        os.close(fd)


def _read_at_most(fd: int, limit: int, path: str) -> bytes:
    chunks: list[bytes] = []
    left = limit + 1
    size = 1 << 14  # most files end here, and a buffer of a megabyte costs an mmap
    while left and (chunk := os.read(fd, min(left, size))):
        chunks.append(chunk)
        left -= len(chunk)
        size = 1 << 20
    if not left:
        raise OSError(errno.EFBIG, f"larger than the limit of {limit} bytes", path)
    return b"".join(chunks)


@functools.cache
def boot_id() -> str:
    """The kernel's random id of this boot (random(4)): what was written under another one does not live any more."""
    return Path(BOOT_ID).read_text(encoding="ascii").strip()
