"""cgroup interface files: one open, one read or write, one close; three system calls and no buffering."""

from __future__ import annotations

import errno
import os

#: Larger than any interface file: cgroup.procs of half a million processes.
READ_LIMIT = 1 << 22
_USUAL = 4096  # nearly all fit, and a buffer of this size costs no mmap
_FLAGS = os.O_RDONLY | os.O_CLOEXEC


def write(path: str, value: str) -> None:
    """Write one value, unterminated, as the kernel takes it; the OSError names the file and the value."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, value.encode("ascii"))
    except OSError as error:
        error.filename = path
        error.add_note(f"while writing {value!r} to {path}")
        raise
    finally:
        os.close(fd)


def read(path: str) -> str:
    """The text of an interface file; raises OSError, with EFBIG for one above READ_LIMIT."""
    fd = os.open(path, _FLAGS)
    try:
        # To the end: a list of processes comes in whole lines, so that a short read is not the last one.
        data = bytearray()
        while lines := os.read(fd, _USUAL):
            data += lines
            if len(data) > READ_LIMIT:
                raise OSError(errno.EFBIG, f"larger than the limit of {READ_LIMIT} bytes", path)
        return data.decode("ascii")
    finally:
        os.close(fd)


def read_pairs(path: str) -> dict[str, int]:
    """A file of `key value` lines (cgroup-v2.rst, "flat keyed")."""
    return {key: int(value) for key, value in read_words(path).items()}


def read_words(path: str) -> dict[str, str]:
    """The same with the values as text, for files of many numbers of which few are wanted."""
    words = read(path).split()
    return dict(zip(words[::2], words[1::2], strict=True))


def read_limit(path: str) -> int | None:
    """A file of one number, or None for `max`."""
    text = read(path).strip()
    return None if text == "max" else int(text)
