"""A running container into CRIU's images, while it goes on.

What is outside of the container stays outside of the images: its mounts (all but the root and procfs are external, by
the name of their mount point), the pod's namespaces (criu runs in them, so they are nobody's own), the pipes to the
shim, the master of its terminal. Connections are dumped too, though a restored pod has another address and finds them
closed.
"""

from __future__ import annotations

import json
import os
import resource
import stat
from pathlib import Path

from cri.proto import api_pb2 as api
from cri.proto import criu_pb2 as criu
from cri.server.checkpoint.conversation import common_options, conversing, open_directory, refused
from cri.server.daemon import pod_of
from cri.server.errors import Exhausted
from cri.server.pods import Container
from runtime.linux.cgroups import Cgroup
from runtime.linux.mounttable import mounts

LOG = "dump.log"
#: In the directory of images: what stdin, stdout and stderr were; runc keeps the same file.
DESCRIPTORS = "descriptors.json"
PTS_MAJORS = range(136, 144)  # Documentation/admin-guide/devices.txt, Unix98 PTY slaves
PID_NAMESPACE = "extRootPidNS"
#: After the request's own deadline criu gets this long before the shim kills it: a dump that is cut off is no help.
SPARE_SECONDS = 30.0
#: And this long its end is waited for: it was told that the container is paused, so that stays true until it ends.
END_SECONDS = 5.0


async def dump(container: Container, program: str, images: Path, work: Path, seconds: float) -> None:
    """Fill `images`; criu's log and statistics go to `work`. The container runs on (or stays frozen, if it was).

    Raises WrongState with criu's last words, Exhausted for a full disk, TookTooLong, OSError, ContainerError.
    """
    pod = pod_of(container.sandbox)
    pid = int((await pod.container_status(container.id))["pid"])
    streams = [_stream(pid, fd, container.spec.tty) for fd in range(3)]
    (images / DESCRIPTORS).write_text(json.dumps(streams))
    with conversing(work / LOG) as conversation:
        await pod.run_criu(program, conversation.theirs.fileno(), seconds + SPARE_SECONDS)
        with open_directory(images) as images_fd, open_directory(work) as work_fd:
            options = _options(container, pid, images_fd.fileno(), work_fd.fileno(), seconds)
            options.external.extend({name for name in streams if name.startswith("tty")})
            request = criu.Request(type=criu.DUMP, opts=options)
            response = await conversation.ask(request, seconds + SPARE_SECONDS + END_SECONDS)
        if not response.success:
            if _is_full(images):  # criu tells of it in many words, and none of them is that
                raise Exhausted(f"no space left for a container's memory on the file system of {images.parents[1]}")
            raise refused(response)


def _is_full(directory: Path) -> bool:
    """Whether not even one more page of memory has room."""
    found = os.statvfs(directory)
    return found.f_bavail * found.f_frsize < resource.getpagesize() or (found.f_files > 0 and found.f_favail == 0)


def _options(container: Container, pid: int, images: int, work: int, seconds: float) -> criu.Options:
    sandbox = container.sandbox
    options = common_options(images, work, LOG, terminal=container.spec.tty)
    options.pid = pid
    options.leave_running = True
    options.orphan_pts_master = True
    options.freeze_cgroup = Cgroup(container.cgroup, sandbox.layout).v2
    options.timeout = int(seconds)
    for mount in mounts(f"/proc/{pid}/mountinfo"):
        if mount.point != "/" and mount.fstype != "proc":
            options.ext_mnt.add(key=mount.point, val=mount.point)
    if shares_pids(container):
        options.external.append(f"pid[{os.stat(f'/proc/{pid}/ns/pid').st_ino}]:{PID_NAMESPACE}")
    return options


def shares_pids(container: Container) -> bool:
    """Whether the PID namespace is the pod's: then it is not the container's to dump, or to restore."""
    return bool(container.sandbox.options.pid == api.POD) and not container.spec.pid_own


def _stream(pid: int, fd: int, terminal: bool) -> str:
    """How CRIU names one of the standard streams: pipe:[inode], tty[rdev:dev], or a path."""
    path = f"/proc/{pid}/fd/{fd}"
    try:
        name, found = os.readlink(path), os.stat(path)
    except FileNotFoundError:
        return ""  # the container has closed it
    if terminal and stat.S_ISCHR(found.st_mode) and os.major(found.st_rdev) in PTS_MAJORS:
        return f"tty[{found.st_rdev:x}:{found.st_dev:x}]"
    return name
