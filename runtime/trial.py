"""Whether this host can give pods a user namespace: tried in a child of the zygote, since versions tell too little.

It takes more than the namespace: the filesystem that holds the images has to be one that can be id-mapped, and
overlayfs has to take such mounts as layers (Linux 5.19).
"""

from __future__ import annotations

import errno
import os
from typing import Final, NoReturn

from runtime.errors import explain
from runtime.linux.channel import Channel
from runtime.linux.overlay import OverlayRootfs, attached_overlay, idmapped_layers
from runtime.linux.syscalls import CLONE_NEWNS, MNT_DETACH, MS_PRIVATE, MS_REC, mount, umount2, unshare
from runtime.linux.userns import holder

OUTSIDE: Final = 100_000
LENGTH: Final = 65_536
_MAPS: Final = {"uid": [[0, OUTSIDE, LENGTH]], "gid": [[0, OUTSIDE, LENGTH]]}


def run_trial(directory: str, answer: Channel) -> NoReturn:
    """Answer {"re": 0, "problem": why it cannot be, or ""}; `directory` is on the images' filesystem."""
    try:
        _try(directory)
    except OSError as error:
        answer.send({"re": 0, "problem": explain(error)})
    else:
        answer.send({"re": 0, "problem": ""})
    finally:
        os._exit(0)


def _try(directory: str) -> None:
    with holder(_MAPS, 0, lambda: None) as (pid, _):
        userns = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    unshare(CLONE_NEWNS)
    mount(None, "/", None, MS_REC | MS_PRIVATE)  # what follows goes with this process
    names = [f"{directory}/.idmap-{os.getpid()}{suffix}" for suffix in ("/top", "/base", "/merged", "")]
    for name in reversed(names):
        os.mkdir(name, 0o700)
    try:
        owner = _owner_seen(OverlayRootfs((names[0], names[1])), userns, names[2])
    finally:
        for name in names:
            os.rmdir(name)
    if owner != OUTSIDE:
        raise OSError(errno.EINVAL, f"the owner of an id-mapped layer shows as {owner}")


def _owner_seen(layers: OverlayRootfs, userns: int, place: str) -> int:
    with idmapped_layers(layers, userns) as mapped:
        fd = attached_overlay(mapped, place)
        os.chdir("/")
    try:
        return os.fstat(fd).st_uid
    finally:
        os.close(fd)
        umount2(place, MNT_DETACH)
