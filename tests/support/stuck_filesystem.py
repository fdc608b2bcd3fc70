"""A file system that hangs: FUSE, spoken by hand, whose files answer no read(2).

    with stuck_filesystem(directory) as stuck:
        ...                      # who reads a file in `directory` is in state D, SIGKILL or not
        stuck.let_go()           # the connection is aborted: every read fails, and whoever was killed dies

As with a dead NFS server, looking at the directory works as long as nothing is read. Source: linux/fuse.h.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

from runtime.linux.syscalls import MNT_DETACH, mount, umount2

MNT_FORCE = 1

FORGET, READ, INTERRUPT, BATCH_FORGET = 2, 15, 36, 42
NO_ANSWER = frozenset({FORGET, BATCH_FORGET, INTERRUPT, READ})
BUFFER = 1 << 20

ROOT, FILE = 1, 2
_HEADER = struct.Struct("<IIQQIIIHH")
_ANSWER = struct.Struct("<IiQ")
_ATTRIBUTES = struct.Struct("<6Q10I")


class StuckFilesystem:
    """The connection; `reads` is how many reads wait."""

    def __init__(self, directory: Path) -> None:
        self._fd = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        self._directory = directory
        self.reads = 0
        options = f"fd={self._fd},rootmode=40755,user_id=0,group_id=0,allow_other"
        mount("stuck", str(directory), "fuse", 0, options.encode())
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def let_go(self) -> None:
        """Abort the connection (umount2(2), MNT_FORCE): whatever waits fails with ENOTCONN, and so does all later."""
        if self._fd >= 0:
            with contextlib.suppress(OSError):  # EBUSY: containers have the mount too; the abort has happened
                umount2(str(self._directory), MNT_FORCE)
            self._thread.join(5)
            os.close(self._fd)
            self._fd = -1

    def _serve(self) -> None:
        while True:
            try:
                request = os.read(self._fd, BUFFER)
            except OSError:  # ENODEV: let go
                return
            _, opcode, unique, node, *_ = _HEADER.unpack_from(request)
            self.reads += opcode == READ
            if opcode not in NO_ANSWER:
                error, body = _answer(opcode, node)
                os.write(self._fd, _ANSWER.pack(_ANSWER.size + len(body), -error, unique) + body)


def _answer(opcode: int, node: int) -> tuple[int, bytes]:
    match opcode:
        case 26:  # INIT: version 7.31
            return 0, struct.pack("<IIIIHHI", 7, 31, 0, 0, 0, 0, 1 << 17).ljust(64, b"\0")
        case 3:  # GETATTR
            return 0, struct.pack("<QII", 1, 0, 0) + _attributes(node)
        case 1:  # LOOKUP: every name is the same file
            return 0, struct.pack("<QQQQII", FILE, 0, 1, 1, 0, 0) + _attributes(FILE)
        case 14 | 27:  # OPEN, OPENDIR; FOPEN_DIRECT_IO: every read comes here
            return 0, struct.pack("<QII", 1, 1, 0)
        case 17:  # STATFS
            return 0, bytes(80)
        case 18 | 25 | 29:  # RELEASE, FLUSH, RELEASEDIR
            return 0, b""
    return errno.ENOSYS, b""


def _attributes(node: int) -> bytes:
    mode = stat.S_IFDIR | 0o755 if node == ROOT else stat.S_IFREG | 0o644
    return _ATTRIBUTES.pack(node, 1, 1, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)


@contextlib.contextmanager
def stuck_filesystem(directory: Path) -> Iterator[StuckFilesystem]:
    """Mounted for as long as the block lasts; let go of at its end at the latest."""
    stuck = StuckFilesystem(directory)
    try:
        yield stuck
    finally:
        stuck.let_go()
        with contextlib.suppress(OSError):  # EINVAL: the abort has unmounted it
            umount2(str(directory), MNT_DETACH)
