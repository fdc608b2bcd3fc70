"""Probes of what containers are made of: namespaces, system calls, mounts, overlay file systems, seccomp filters.

Each runs in a child of its own (probe.py), raises where the feature is missing, and says in words what it found.
"""

from __future__ import annotations

import functools
import os
import struct
from collections.abc import Callable
from typing import Final

from runtime.linux import mountapi, mounts, seccomp, syscalls
from runtime.linux.overlay import OverlayRootfs, appends_layers, detached_overlay, overlay_at

NAMESPACES: Final = {
    "mount": syscalls.CLONE_NEWNS,
    "uts": syscalls.CLONE_NEWUTS,
    "ipc": syscalls.CLONE_NEWIPC,
    "network": syscalls.CLONE_NEWNET,
    "pid": syscalls.CLONE_NEWPID,
    "cgroup": syscalls.CLONE_NEWCGROUP,
    "user": syscalls.CLONE_NEWUSER,
    "time": syscalls.CLONE_NEWTIME,
}
_BPF_RET_ALLOW: Final = struct.pack("=HBBI", 0x06, 0, 0, 0x7FFF0000)


def namespace(flag: int, directory: str) -> str:
    syscalls.unshare(flag)
    return "can be made"


def clone3_pidfd(directory: str) -> str:
    """A child by clone3(2), waited for through its pidfd."""
    pid, pidfd = syscalls.clone3(0)
    if pid == 0:
        os._exit(7)
    result = os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
    if result is None or result.si_status != 7:
        raise OSError(f"the child's exit status did not arrive: {result}")
    return "clone3(2) gives a pidfd, and waitid(2) takes it"


def openat2(directory: str) -> str:
    """A link that leaves the root is resolved inside of it."""
    os.symlink("../../../../../etc", os.path.join(directory, "out"))
    os.mkdir(os.path.join(directory, "etc"))
    root = os.open(directory, os.O_PATH | os.O_DIRECTORY)
    inside = syscalls.openat2(root, "out", os.O_PATH | os.O_DIRECTORY, resolve=syscalls.RESOLVE_IN_ROOT)
    if os.fstat(inside).st_ino != os.stat(os.path.join(directory, "etc")).st_ino:
        raise OSError("RESOLVE_IN_ROOT let a symbolic link leave its root")
    return "RESOLVE_IN_ROOT keeps links inside"


def mount_api(directory: str) -> str:
    """A tmpfs by fsopen(2) and fsmount(2), put in place by move_mount(2), and a copy of it by open_tree(2)."""
    _own_mounts()
    fd = mounts.filesystem("tmpfs", "doctor")
    mountapi.move_mount_at(fd, directory)
    mountapi.mount_setattr(mounts.bind(directory), set_=mountapi.MOUNT_ATTR_RDONLY)
    return "fsopen, fsmount, move_mount, open_tree and mount_setattr work"


def overlay(directory: str) -> str:
    """Two layers and a writable one, on the file system that containers will use; a file is changed and removed."""
    _own_mounts()
    layers = {name: os.path.join(directory, name) for name in ("top", "base", "upper", "work", "merged")}
    for path in layers.values():
        os.mkdir(path)
    _write(os.path.join(layers["base"], "file"), "base")
    rootfs = OverlayRootfs((layers["top"], layers["base"]), layers["upper"], layers["work"])
    way = _mount_overlay(rootfs, layers["merged"])
    os.chdir("/")
    _write(os.path.join(layers["merged"], "file"), "changed")
    os.unlink(os.path.join(layers["merged"], "file"))
    return way


def _mount_overlay(rootfs: OverlayRootfs, target: str) -> str:
    if not appends_layers():
        overlay_at(rootfs, target)
        return "works through mount(2), which takes some dozens of layers at most"
    mountapi.move_mount_at(detached_overlay(rootfs), target)
    return "works, with layers one by one (lowerdir+)"


def idmapped_mount(directory: str) -> str:
    """A directory mounted with other owners (mount_setattr(2), MOUNT_ATTR_IDMAP)."""
    _own_mounts()
    users = _user_namespace(100000, 65536)
    copy = mounts.bind(directory)
    mountapi.mount_setattr(copy, set_=mountapi.MOUNT_ATTR_IDMAP, userns_fd=users)
    if (owner := os.fstat(copy).st_uid) != 100000:
        raise OSError(f"owner 0 shows as {owner} in place of 100000")
    return "owners are mapped"


def _user_namespace(first: int, length: int) -> int:
    """An fd of a user namespace in which id 0 is `first` outside; its one process waits until we end."""
    ready, made = os.pipe()
    stay, go = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(go)
        syscalls.unshare(syscalls.CLONE_NEWUSER)
        os.write(made, b"+")
        os.read(stay, 1)
        os._exit(0)
    os.close(made)
    if not os.read(ready, 1):
        raise OSError("no user namespace could be made")
    for kind in ("uid", "gid"):
        _write(f"/proc/{pid}/{kind}_map", f"0 {first} {length}\n")
    return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY)


def seccomp_filter(directory: str) -> str:
    """A filter that allows everything."""
    seccomp.install(_BPF_RET_ALLOW)
    return "filters can be installed"


def _own_mounts() -> None:
    """Nothing of what this process mounts is seen outside, and all of it goes with the process."""
    syscalls.unshare(syscalls.CLONE_NEWNS)
    syscalls.mount(None, "/", None, syscalls.MS_REC | syscalls.MS_PRIVATE)


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


PROBES: Final[dict[str, Callable[[str], str]]] = {
    **{f"{name} namespace": functools.partial(namespace, flag) for name, flag in NAMESPACES.items()},
    "clone3 and pidfd": clone3_pidfd,
    "openat2": openat2,
    "mount API": mount_api,
    "overlay": overlay,
    "idmapped mounts": idmapped_mount,
    "seccomp": seccomp_filter,
}
