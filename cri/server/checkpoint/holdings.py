"""What restored processes hold: every file, directory, program and mapping must be of a mount of the container.

CRIU opens files by names from the archive. Between the look at the names (names.py) and that, somebody who shares a
volume can have put a link in the way, and links of procfs lead to whatever CRIU itself has open. The kernel knows for
every open file which mount it came through, so it is asked.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from collections.abc import Iterator, Sequence

from cri.server.checkpoint.dump import PTS_MAJORS
from cri.server.errors import InvalidRequest
from runtime.linux.fds import Fd
from runtime.linux.files import read_limited
from runtime.linux.mounttable import Mount

HELD_MAX = 100_000
_INFO_LIMIT = 4096
_NULL = os.makedev(1, 3)


def inspect_holdings(pid: int, found: Sequence[Mount]) -> None:
    """`found` are the container's mounts. Blocks; raises InvalidRequest for what is from elsewhere, OSError."""
    within = {mount.id for mount in found}
    devices = {mount.device for mount in found}
    kernel = _kernel_devices()
    for number, link in enumerate(_links(pid)):
        if number >= HELD_MAX:
            raise InvalidRequest(f"the checkpoint's processes hold more than {HELD_MAX} files")
        with contextlib.suppress(FileNotFoundError), Fd(os.open(link, os.O_PATH | os.O_CLOEXEC)) as fd:
            status = os.fstat(fd.fileno())
            if status.st_dev in kernel or _stream(status, devices) or _mount_id(fd.fileno()) in within:
                continue
            raise InvalidRequest(f"the checkpoint opens a file outside of the container: {os.readlink(link)[:200]!a}")


def _links(pid: int) -> Iterator[str]:
    """Of a process: its threads share all of it, since CRIU makes them with CLONE_FILES and CLONE_FS."""
    yield from (f"/proc/{pid}/{name}" for name in ("cwd", "root", "exe"))
    for directory in ("fd", "map_files"):
        yield from (f"/proc/{pid}/{directory}/{name}" for name in os.listdir(f"/proc/{pid}/{directory}"))


def _kernel_devices() -> set[int]:
    """Where the kernel keeps what has no name: pipes, sockets, shared memory, event files, pidfds."""
    reading, writing = os.pipe()
    ours, theirs = socket.socketpair()
    with ours, theirs, Fd(reading) as pipe, Fd(writing), Fd(os.memfd_create("look")) as memory:
        with Fd(os.eventfd(0)) as event, Fd(os.pidfd_open(os.getpid())) as process:
            return {os.fstat(each.fileno()).st_dev for each in (pipe, ours, memory, event, process)}


def _stream(status: os.stat_result, devices: set[str]) -> bool:
    """What the shim gives as stdin, stdout and stderr: the null device, or the container's own terminal."""
    if not stat.S_ISCHR(status.st_mode):
        return False
    device = f"{os.major(status.st_dev)}:{os.minor(status.st_dev)}"
    return status.st_rdev == _NULL or (os.major(status.st_rdev) in PTS_MAJORS and device in devices)


def _mount_id(fd: int) -> int:
    info = read_limited(f"/proc/self/fdinfo/{fd}", _INFO_LIMIT).decode()
    return next(int(line.split()[1]) for line in info.splitlines() if line.startswith("mnt_id:"))
