"""What a run of an external runtime sees, made by the child that becomes it; nothing of it reaches the host.

    a mount namespace of its own, all mounts slaves of the host's
    /sys/fs/cgroup     on hosts with v1 hierarchies: those that this project uses, from the daemon's own cgroup down.
                       So the path in the config means the cgroup that crid has made, in each of them
    BUNDLE/rootfs      the container's root filesystem
    BUNDLE/mounts/*    see bundle.py

It lives as long as the shim holds its fd: later runs for the same container enter it. Nothing of it has to be undone.
"""

from __future__ import annotations

import json
import os
import signal
import stat
from typing import Any, Final, NamedTuple

import prctl

from runtime.errors import StartError
from runtime.external.bundle import CGROUPS, hierarchies
from runtime.linux import mountapi, mounts, syscalls
from runtime.linux.cgroups import Layout
from runtime.linux.messages import parse
from runtime.linux.overlay import OverlayRootfs, attached_overlay
from runtime.mounting import OpenSource
from runtime.signals import reset_signals
from runtime.status import Status
from runtime.tree import Tree, perform

ENVIRONMENT: Final = [b"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
STATUS_FD: Final = 3


class RunPlan(NamedTuple):
    """One run. `view` is the fd of an earlier run's mount namespace, -1 to make one from `document` (bundle.py).

    `file` and `content` are written into the bundle first; `pid_namespace` is that of config.json: "" for the node's,
    "new", or the path of one to join. `streams` become 0, 1 and 2, -1 for the null device.
    """

    argv: list[str]
    bundle: str
    streams: tuple[int, int, int]
    view: int
    layout: Layout
    document: bytes = b""
    pid_namespace: str = ""
    file: str = ""
    content: bytes = b""


def run_tool(plan: RunPlan, status: Status) -> None:
    """The body of the child: becomes the runtime. Only returns by raising."""
    os.setsid()
    os.umask(0o022)
    prctl.set_pdeathsig(signal.SIGKILL)  # without the shim nobody would hear it out
    if plan.view >= 0:
        syscalls.setns(plan.view, syscalls.CLONE_NEWNS)
    else:
        _make_view(parse(plan.document), plan)
        status.terminal(os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC))
    os.chdir(plan.bundle)
    if plan.file:
        _write(plan.file, plan.content)
    _execute(plan, status)


def _execute(plan: RunPlan, status: Status) -> None:
    argv = syscalls.string_array([os.fsencode(argument) for argument in plan.argv])
    environment = syscalls.string_array(ENVIRONMENT)
    _become_stdio(plan.streams)
    status.move_to(STATUS_FD)
    syscalls.close_range(STATUS_FD + 1)
    reset_signals()
    status.executing()
    try:
        syscalls.execve(os.fsencode(plan.argv[0]), argv, environment)
    except OSError as error:
        why = os.strerror(error.errno or 0).lower()
        raise StartError(f"the runtime {plan.argv[0]} cannot be executed: {why}") from error


def _become_stdio(streams: tuple[int, int, int]) -> None:
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    # Above the targets first: a stream may itself have one of the numbers 0, 1, 2.
    opened = [os.dup(null if fd < 0 else fd) for fd in streams]
    for target, fd in enumerate(opened):
        os.dup2(fd, target)


def _write(path: str, content: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with open(fd, "wb") as file:
        file.write(content)


def _make_view(document: dict[str, Any], plan: RunPlan) -> None:
    sources = [_source(each["source"], each["resolved"]) for each in document["staged"] if "source" in each]
    syscalls.mount(None, "/", None, syscalls.MS_REC | syscalls.MS_SLAVE)
    show_cgroups(plan.layout, document["config"]["linux"]["cgroupsPath"])
    _stage(document["staged"], sources)
    if not isinstance(document["rootfs"], str):
        os.close(attached_overlay(OverlayRootfs.from_json(document["rootfs"]), f"{plan.bundle}/rootfs"))
    config = document["config"]
    if plan.pid_namespace:
        own = {"type": "pid"} if plan.pid_namespace == "new" else {"type": "pid", "path": plan.pid_namespace}
        config["linux"]["namespaces"].append(own)
    _write(f"{plan.bundle}/config.json", json.dumps(config).encode())


def _source(path: str, resolved: bool) -> int:
    """A detached copy of the mounts at a path, opened as for the built-in runtime."""
    tree = Tree(staging="")
    perform([OpenSource(path, recursive=True, resolved=resolved)], tree)
    return tree.sources[path, True].pop()


def _stage(staged: list[dict[str, Any]], sources: list[int]) -> None:
    """Attach what the config's mounts take as their sources."""
    for each in staged:
        if "source" not in each:
            os.mkdir(each["place"], 0o700)
            os.close(attached_overlay(OverlayRootfs.from_json(each["overlay"]), each["place"]))
            continue
        fd = sources.pop(0)
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            os.mkdir(each["place"], 0o700)
        else:
            _write(each["place"], b"")
        mountapi.move_mount_at(fd, each["place"])
        os.close(fd)


def show_cgroups(layout: Layout, path: str) -> None:
    """Let the hierarchies of `layout`, and no others, stand at /sys/fs/cgroup, each from its base directory down.

    Cgroup v2 beside v1 is not shown: crun refuses a host where it has controllers, and what the runtime starts is in
    the container's cgroup there by birth (runs.py, birthplace).
    """
    if not layout.v1:
        if layout.v2 != CGROUPS:
            fd = mounts.bind(layout.v2)
            mountapi.move_mount_at(fd, CGROUPS)
            os.close(fd)
        return
    opened = {name: mounts.bind(directory) for name, directory in hierarchies(layout).items()}
    syscalls.umount2(CGROUPS, syscalls.MNT_DETACH)
    cover = mounts.filesystem("tmpfs", "cgroups", [("mode", "755")], mountapi.MOUNT_ATTR_NOSUID)
    mountapi.move_mount_at(cover, CGROUPS)
    os.close(cover)
    for name, fd in opened.items():
        os.mkdir(f"{CGROUPS}/{name}", 0o755)
        mountapi.move_mount_at(fd, f"{CGROUPS}/{name}")
        os.close(fd)
    # crun asks the v1 freezer, which nobody uses here, whether the container is paused, and takes no silence for "no".
    os.makedirs(f"{CGROUPS}/freezer{path}", 0o755)
    _write(f"{CGROUPS}/freezer{path}/freezer.state", b"THAWED\n")
