"""A container that was created from a checkpoint, started: CRIU brings its processes up where a start would put them.

    shim      the container's cgroup, its mounts staged, criu in the middle of them
    crid      what the images want bound is compared with what is staged; criu restores, and waits before it lets go
    crid      what came out is inspected, and handed over to the shim; criu lets go

Until the handover everything is in the container's cgroup, and killing that takes all of it back.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping
from pathlib import Path

from cri.proto import criu_pb2 as criu
from cri.server.checkpoint.conversation import common_options, conversing, open_directory, refused
from cri.server.checkpoint.dump import DESCRIPTORS, PID_NAMESPACE, shares_pids
from cri.server.checkpoint.images import check_images
from cri.server.checkpoint.inspection import inspect, namespaces_of
from cri.server.checkpoint.names import check_names
from cri.server.checkpoint.privileges import Bounds
from cri.server.checkpoint.workplace import IMAGES, WORK
from cri.server.daemon import pod_of
from cri.server.errors import InvalidRequest
from cri.server.pods import Container
from runtime.client import PID_NAMESPACE_FD, STAGED_ROOT, STAGED_TREE, STREAM_FDS, Pod, Started
from runtime.linux import seccomp
from runtime.linux.cgroups import Cgroup
from runtime.linux.failpoints import failpoint
from runtime.linux.fds import Fd
from runtime.linux.files import read_limited
from runtime.linux.mounttable import Mount, mounts

LOG = "restore.log"
SECONDS = 600.0
FAILPOINTS = ("crid.revive.before_criu", "crid.revive.before_handover", "crid.revive.after_handover")
_NAMES_LIMIT = 4096


async def revive(container: Container, program: str, place: Path) -> Started:
    """Bring it up; when this raises, nothing runs.

    Raises InvalidRequest for a checkpoint that does not fit the request, WrongState with criu's last words, OSError,
    ContainerError.
    """
    pod = pod_of(container.sandbox)
    wanted = await asyncio.to_thread(check_images, place / IMAGES, _filter(container))
    streams = _streams(place / IMAGES)
    with conversing(place / WORK / LOG) as conversation:
        async with pod.restoring(container.spec, program, conversation.theirs.fileno()) as pid:
            failpoint("crid.revive.before_criu")
            staged = staged_mounts(pid)
            _compare(wanted, staged)
            await asyncio.to_thread(_check_names, place / IMAGES, pid, container)
            arrival = _Arrival(container, pod, pid, staged)
            with open_directory(place / IMAGES) as images, open_directory(place / WORK) as work:
                options = _options(container, images.fileno(), work.fileno(), wanted, streams)
                request = criu.Request(type=criu.RESTORE, opts=options)
                response = await conversation.ask(request, SECONDS, arrival.step)
            if arrival.started is None:
                raise refused(response)
            return arrival.started


class _Arrival:
    """The steps at which criu waits: what it has made is looked at before the last of them."""

    def __init__(self, container: Container, pod: Pod, criu_pid: int, staged: Mapping[str, Mount]) -> None:
        self.started: Started | None = None
        self._container = container
        self._pod = pod
        self._criu = criu_pid
        self._spaces = namespaces_of(criu_pid)
        self._staged = staged
        self._pid = 0

    async def step(self, name: str, pid: int, fds: list[int]) -> None:
        """Called with the first process's pid at some steps; at "pre-resume" all is made and none of it runs."""
        self._pid = pid or self._pid
        if name != "pre-resume":
            return
        await asyncio.to_thread(self._inspect)
        failpoint("crid.revive.before_handover")
        self.started = await self._pod.container_arrived(self._container.id, self._pid)
        failpoint("crid.revive.after_handover")

    def _inspect(self) -> None:
        cgroup = Cgroup(self._container.cgroup, self._container.sandbox.layout)
        pids = [pid for pid in cgroup.procs() if not _is_criu(pid, self._criu)]
        inspect(self._pid, pids, self._staged, self._spaces, self._container.spec)


def _is_criu(pid: int, criu_pid: int) -> bool:
    """criu and its helpers are in the cgroup too, but in criu's own mount namespace."""
    try:
        return os.readlink(f"/proc/{pid}/ns/mnt") == os.readlink(f"/proc/{criu_pid}/ns/mnt")
    except FileNotFoundError:
        return True  # it has ended


def _check_names(images: Path, criu_pid: int, container: Container) -> None:
    tree = f"/proc/{criu_pid}/root{STAGED_TREE}"
    with Fd(os.open(tree, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as staged:
        check_names(images, staged.fileno(), Bounds.of(container.spec))


def _filter(container: Container) -> bytes:
    return seccomp.load(container.spec.seccomp_filter) if container.spec.seccomp_filter else b""


def _streams(images: Path) -> list[str]:
    """What stdin, stdout and stderr were; only names of things that the shim gives anew have a meaning."""
    try:
        names = json.loads(read_limited(images / DESCRIPTORS, _NAMES_LIMIT))
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidRequest(f"the checkpoint's {DESCRIPTORS} cannot be read: {error}") from error
    if not isinstance(names, list) or len(names) != 3 or not all(isinstance(name, str) for name in names):
        raise InvalidRequest(f"the checkpoint's {DESCRIPTORS} names no three streams")
    return names


def staged_mounts(pid: int) -> dict[str, Mount]:
    """What is staged in criu's mount namespace, by its place in the container."""
    found = mounts(f"/proc/{pid}/mountinfo")
    return {
        mount.point.removeprefix(STAGED_TREE) or "/": mount
        for mount in found
        if mount.point == STAGED_TREE or mount.point.startswith(f"{STAGED_TREE}/")
    }


def _compare(wanted: set[str], staged: Mapping[str, Mount]) -> None:
    """The same mounts on both sides: those of the request, and no others (CVE-2024-8676)."""
    given = {point for point, mount in staged.items() if point != "/" and mount.fstype != "proc"}
    if more := sorted(wanted - given):
        raise InvalidRequest(f"the checkpointed container had a mount at {more[0][:200]!r}, which the request lacks")
    if less := sorted(given - wanted):
        raise InvalidRequest(f"the request has a mount at {less[0][:200]!r}, which the checkpointed container lacked")


def _options(container: Container, images: int, work: int, wanted: set[str], streams: list[str]) -> criu.Options:
    options = common_options(images, work, LOG, terminal=container.spec.tty)
    options.root = STAGED_ROOT
    options.rst_sibling = True
    options.notify_scripts = True
    options.tcp_close = True
    for point in sorted(wanted):
        options.ext_mnt.add(key=point, val=f"{STAGED_TREE}{point}")
    for name, fd in dict(zip(reversed(streams), reversed(STREAM_FDS), strict=True)).items():
        if name.startswith("tty[" if container.spec.tty else "pipe:["):
            options.inherit_fd.add(key=name, fd=STREAM_FDS[0] if container.spec.tty else fd)
    if shares_pids(container):
        options.inherit_fd.add(key=PID_NAMESPACE, fd=PID_NAMESPACE_FD)
    return options
