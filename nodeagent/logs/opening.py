"""A log's file, opened as such: no link is followed to it, and no FIFO is waited for.

A pod that has the node's directory of logs as a volume can put anything there. What the agent compresses, or the
administrator reads, would then be any file of the host, for the pod to read where it comes out (the kubelet had that
for `kubectl logs`).
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

from runtime.linux.syscalls import AT_FDCWD, RESOLVE_NO_SYMLINKS, openat2

#: <root>/<pod>/<container>/<attempt>.log; the root itself is the node's, and may be a link.
LEVELS = 3


def open_log(path: Path) -> BinaryIO:
    """For reading. Raises OSError: ELOOP for a link on the way, EINVAL for what is no file, FileNotFoundError."""
    place = path.absolute()
    root = place.parents[min(LEVELS, len(place.parents)) - 1]
    real = os.path.join(os.path.realpath(root), place.relative_to(root))
    try:
        fd = openat2(AT_FDCWD, real, os.O_RDONLY | os.O_NONBLOCK, resolve=RESOLVE_NO_SYMLINKS)
    except OSError as error:
        error.filename = str(path)
        raise
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "is no regular file", str(path))
    return os.fdopen(fd, "rb")
