"""What a shim leaves behind when it is killed, and how that is ended: walk the disk, undo each, skip what is gone.

A dead shim's containers cannot go on: nobody reads their output and nobody would learn their exit codes. Their first
processes get SIGKILL from the kernel with their parent (PR_SET_PDEATHSIG); the rest is done here, by crid, from the
records that the shim wrote before each effect. Everything is idempotent, so a crash in the middle costs nothing.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
from collections.abc import Mapping, Sequence
from typing import Any

from runtime import podcgroup, state
from runtime.linux import namespaces, syscalls
from runtime.linux.cgroups import Cgroup, Layout
from runtime.linux.cgroups.tree import REMOVE_SECONDS
from runtime.linux.fds import Fd
from runtime.linux.procs import Process

DYING_SECONDS = 5.0


def destroy_lost(state_dir: str, remembered: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
    """End a sandbox whose shim does not answer: the shim, its containers, their cgroups, the pins. Raises OSError.

    `remembered` is what the caller knows of it, in the form of shim.json, for a state directory that was emptied.
    Returns the records of containers that had ended before; of the others nobody knows how they ended.
    """
    shim = state.read_shim(state_dir) or remembered
    containers = state.read_containers(state_dir)
    if shim:
        for process in ("builder", "shim"):
            _end(Process.from_json(shim[process]))
        layout = Layout.from_json(shim["layout"])
        remove_cgroups(state_dir, layout, shim.get("own", ()))
        if shim["cgroup_parent"]:
            podcgroup.remove_unused(shim["cgroup_parent"], layout)
    unmount(state_dir)
    return [doc for doc in containers if state.has_ended(doc)]


def remove_cgroups(state_dir: str, layout: Layout, own: Sequence[Mapping[str, str]]) -> None:
    """Kill what is in a sandbox's cgroups, remove them, forget its containers. Raises OSError for what cannot die."""
    containers = state.read_containers(state_dir)
    cgroups = [Cgroup(doc["cgroup"], layout) for doc in [*containers, *own]]
    for cgroup in cgroups:
        cgroup.kill()
    for cgroup in cgroups:
        cgroup.remove(DYING_SECONDS)
    for doc in containers:
        state.forget_container(state_dir, doc["container"])


def remove_container(state_dir: str, container_id: str, layout: Layout, seconds: float = REMOVE_SECONDS) -> None:
    """Remove what is left of a container that has ended, or was never started; no error for an unknown one.

    OSError with EBUSY when its last processes are not reaped in `seconds`.
    """
    record = state.read_container(state_dir, container_id)
    if record is not None:
        cgroup = Cgroup(record["cgroup"], layout)
        cgroup.kill()
        cgroup.remove(seconds)
        state.forget_container(state_dir, container_id)


def _end(shim: Process) -> None:
    """SIGKILL, and wait until it can do nothing more."""
    with contextlib.suppress(ProcessLookupError), Fd(shim.pidfd()) as pidfd:
        signal.pidfd_send_signal(pidfd.fileno(), signal.SIGKILL)
        poll = select.poll()
        poll.register(pidfd.fileno(), select.POLLIN)
        if not poll.poll(DYING_SECONDS * 1000):
            raise TimeoutError(f"shim {shim.pid} does not die of SIGKILL; it hangs in the kernel")


def unmount(state_dir: str) -> None:
    """Undo a sandbox's mounts and remove its socket; what is not there is fine."""
    names = f"{state_dir}/{state.NAMESPACES}"
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir(names):
            namespaces.unpin(f"{names}/{name}")
        os.rmdir(names)
    for name in (state.SHM, state.ETC):
        with contextlib.suppress(FileNotFoundError):
            _unmount(f"{state_dir}/{name}")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(f"{state_dir}/{state.SOCKET}")


def _unmount(path: str) -> None:
    try:
        syscalls.umount2(path, syscalls.MNT_DETACH | syscalls.UMOUNT_NOFOLLOW)
    except OSError as error:
        if error.errno != errno.EINVAL:  # EINVAL: the directory is there but nothing is mounted on it
            raise
    os.rmdir(path)
