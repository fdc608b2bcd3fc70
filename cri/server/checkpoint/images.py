"""What may be in CRIU's images, asked before CRIU reads them.

Images are a program for CRIU: they can make it mount a disk, open a packet socket, unpack a tar. So only the kinds of
files, mounts and filters pass that a container of this runtime can have; the rest is refused by its name. What is in
memory and registers is the container's own business, and confined like it.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from cri.proto import criu_pb2 as criu
from cri.server.checkpoint.entries import entries
from cri.server.errors import InvalidRequest

PROC = 1  # mnt_entry.fstype
ROOT = "/"
#: Names of images, as CRIU's image-desc.c has them, without what makes CRIU set up networks, mounts, or run programs,
#: and without those of old releases, whose files stand in files.img now, where they are looked at.
_NAMES = re.compile(
    r"(core|ids|mm|pagemap|pages|fs|fdinfo|pidns|timens|mountpoints|signal-[sp]|sigacts|itimers|posix-timers|rlimit"
    r"|creds|vmas|tcp-stream|ghost-file|pagemap-shmem|pages-shmem)-[0-9a-f]+\.img"
    r"|(inventory|pstree|files|seccomp|filelocks|remap-fpath|pipes-data|fifo-data|sk-queues|tty-info|tty-data"
    r"|stats-dump|stats-restore|cgroup|apparmor)\.img|stats-dump|descriptors\.json"
)
#: fd_types of fdinfo.proto: no packet or netlink sockets, no tun, no namespaces, no BPF maps, no files of plugins.
_FILES = {
    1: "a file",
    2: "a pipe",
    3: "a fifo",
    4: "a TCP or UDP socket",
    5: "a unix socket",
    6: "an eventfd",
    7: "an epoll",
    8: "an inotify",
    9: "a signalfd",
    11: "a terminal",
    17: "a timerfd",
    18: "a memfd",
    20: "a pidfd",
}
_REFUSED = {
    10: "a packet socket",
    12: "a fanotify",
    13: "a netlink socket",
    14: "a namespace",
    15: "a tun device",
    19: "a BPF map",
}


def check_images(images: Path, seccomp: bytes) -> set[str]:
    """The mount points that the images want bound, after a look at all that can be looked at.

    `seccomp` is the filter that the container would be started with, b"" for none. Raises InvalidRequest.
    """
    for path in images.iterdir():
        if not _NAMES.fullmatch(path.name):
            raise InvalidRequest(f"the checkpoint holds {path.name[:100]!r}, which no container of this runtime has")
    for file in entries(images / "files.img", criu.File):
        if file.type not in _FILES:
            what = _REFUSED.get(file.type, f"a file of type {file.type}")
            raise InvalidRequest(f"the checkpoint holds {what}, which cannot be restored safely")
    _check_filters(images / "seccomp.img", seccomp)
    return _external_mounts(images)


def _check_filters(path: Path, wanted: bytes) -> None:
    """The lowest filter of each chain must be ours: those above it can only forbid more."""
    found = list(entries(path, criu.Seccomp)) if path.exists() else []
    filters = [each for entry in found for each in entry.seccomp_filters]
    if any(each.HasField("prev") and each.prev >= number for number, each in enumerate(filters)):
        raise InvalidRequest("the checkpoint's seccomp filters stand on each other in a circle")
    if any(not each.HasField("prev") and each.filter != wanted for each in filters) and wanted:
        raise InvalidRequest(
            "the checkpoint has another seccomp filter than this container would have; "
            "restore it with the profile and the capabilities that it was running with"
        )


def _external_mounts(images: Path) -> set[str]:
    tables = list(images.glob("mountpoints-*.img"))
    if len(tables) != 1:
        raise InvalidRequest(f"the checkpoint has {len(tables)} mount namespaces; a container has one")
    external: set[str] = set()
    for mount in entries(tables[0], criu.Mount):
        point = posixpath.normpath(ROOT + mount.mountpoint.removeprefix("./").lstrip("/"))
        if mount.HasField("ext_key"):
            external.add(mount.ext_key)
        elif point != ROOT and not (mount.fstype == PROC and (point + "/").startswith("/proc/")):
            raise InvalidRequest(
                f"the checkpoint has a mount at {point[:200]!r} that was made inside of the container, "
                "or by another runtime; it cannot be restored"
            )
    return external
