"""One cgroup: a logical path that is a directory in every hierarchy that this host uses.

The order of a container's life, each step idempotent:

    parent                         child
    create(), apply(resources)
    join = prepare_join()
    clone3(CLONE_INTO_CGROUP)      join.enter()     v1 hierarchies; v2 it was born into
    ...                            execve
    kill(), remove()

No call here keeps a file open; a container start costs some thirty short system calls on v1, half of them on v2.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import time
from collections.abc import Mapping
from typing import Any

from runtime.linux.cgroups import bpf, devices, files, tree
from runtime.linux.cgroups.errors import InvalidResources, MissingController
from runtime.linux.cgroups.join import Join
from runtime.linux.cgroups.layout import Layout, detect
from runtime.linux.cgroups.resources import plan
from runtime.linux.cgroups.setting import Setting

FREEZE_SECONDS = 5.0
_NO_NAMES = frozenset(("", ".", ".."))


class Cgroup:
    """A cgroup by its logical path, such as `/kubepods/burstable/pod<uid>/<container>`; it need not exist yet."""

    __slots__ = ("layout", "path", "v2")

    def __init__(self, path: str, layout: Layout | None = None) -> None:
        """`layout` is this host's by default. Raises InvalidResources for a path that is not absolute and plain."""
        names = path.split("/")
        if names[0] or len(names) < 2 or not _NO_NAMES.isdisjoint(names[1:]) or "\0" in path:
            raise InvalidResources(f"cgroup path {path!r} is not absolute or has empty, . or .. components")
        self.path = path
        self.layout = layout or detect()
        #: its cgroup v2 directory, or "" on a legacy host
        self.v2 = self.layout.v2 + path if self.layout.v2 else ""

    @property
    def directories(self) -> tuple[str, ...]:
        """Where it is, v2 last."""
        return tuple(base + self.path for base in self.layout.directories())

    def exists(self) -> bool:
        """Whether it is there, at least in part."""
        return any(os.path.isdir(directory) for directory in self.directories)

    def create(self) -> None:
        """Make it, with its ancestors, in every hierarchy; limits stay as they are inherited. Raises OSError."""
        for base in dict.fromkeys(self.layout.v1.values()):
            if base == self.layout.v1.get("cpuset"):
                tree.make_cpuset(base, base + self.path)
            else:
                tree.make(base + self.path)
        if self.v2:
            tree.make(self.v2)
            if self.layout.v2_controllers:
                tree.enable_controllers(self.layout, self.path)

    def apply(self, resources: Mapping[str, Any]) -> None:
        """Put OCI `linux.resources` in force, and only what is given; on processes in it at once.

        Raises MissingController or InvalidResources before anything changed, OSError when the kernel refuses a value.
        """
        settings = plan(resources, self.layout)
        rules = resources.get("devices")
        policy = devices.DevicePolicy.from_rules(rules) if rules else None
        _check_usage(self, resources)
        refused = [setting for setting in settings if not self._set(setting, again=True)]
        # Pairs like quota and period, limit and memsw are only valid in one order, which depends on the old values.
        for setting in refused:
            self._set(setting, again=False)
        if policy:
            self._filter_devices(policy)

    def _set(self, setting: Setting, again: bool) -> bool:
        """Make one setting; False when the kernel may take it after the others (only with `again`)."""
        try:
            files.write(f"{self.directory(setting.controller)}/{setting.file}", setting.value)
        except FileNotFoundError:
            if not setting.tolerant:
                raise MissingController(setting.controller, setting.field) from None
        except OSError as error:
            if again and error.errno in (errno.EINVAL, errno.EBUSY):
                return False
            error.add_note(f"for linux.resources.{setting.field} of cgroup {self.path}")
            raise
        return True

    def _filter_devices(self, policy: devices.DevicePolicy) -> None:
        version = self.layout.version("devices")
        if version == 1:
            for file, value in devices.v1_writes(policy):
                files.write(f"{self.directory('devices')}/{file}", value)
        elif version == 2:
            bpf.attach(self.v2, policy)
        else:
            raise MissingController("devices", "devices")

    def directory(self, controller: str) -> str:
        """Where the files of a controller are; raises MissingController."""
        version = self.layout.version(controller)
        if not version:
            raise MissingController(controller, controller)
        return self.v2 if version == 2 else self.layout.v1[controller] + self.path

    def prepare_join(self) -> Join:
        """What a child needs to put itself into the v1 hierarchies; opened here, because it may not see them later."""
        return Join([base + self.path for base in dict.fromkeys(self.layout.v1.values())])

    def clone_fd(self) -> int:
        """An fd for clone3's CLONE_INTO_CGROUP (the caller closes it); raises MissingController without cgroup v2."""
        if not self.v2:
            raise MissingController("cgroup2", "cgroupsPath")
        return os.open(self.v2, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def add(self, pid: int) -> None:
        """Move another process in; milliseconds (the kernel waits for an RCU grace period), so no way to start one."""
        for directory in self.directories:
            files.write(f"{directory}/cgroup.procs", str(pid))

    def procs(self) -> list[int]:
        """Pids in it and below; empty when it does not exist."""
        top = self.v2 or self.directories[0]
        with contextlib.suppress(FileNotFoundError):
            if os.stat(top).st_nlink == 2:  # no cgroup below, as nearly always: spares listing its sixty files
                return sorted(tree.pids(top))
        return sorted({pid for directory, _, _ in os.walk(top) for pid in tree.pids(directory)})

    def kill(self) -> None:
        """SIGKILL every process in it and below, also those that are forking now; returns before they are gone.

        No error when it is gone, nor on a legacy host, where none can be born in one (clone_fd). Raises OSError, with
        ENOENT where the kernel has no cgroup.kill (before 5.14).
        """
        if not self.v2:
            return
        try:
            files.write(f"{self.v2}/cgroup.kill", "1")
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENODEV) or os.path.isdir(self.v2):
                raise

    def populated(self) -> bool:
        """Whether a live process is in it or below; zombies do not count on v2."""
        if not self.v2:
            return bool(self.procs())
        try:
            return files.read_pairs(f"{self.v2}/cgroup.events")["populated"] == 1
        except FileNotFoundError:
            return False

    def freeze(self, frozen: bool) -> None:
        """Stop every process in it and below, or let them go on; returns when they have.

        Raises FileNotFoundError when it is gone, or goes meanwhile, TimeoutError, MissingController without cgroup v2.
        """
        if not self.v2:
            raise MissingController("cgroup2", "freezer")
        try:
            files.write(f"{self.v2}/cgroup.freeze", "1" if frozen else "0")
            reached = _await_event(f"{self.v2}/cgroup.events", "frozen", int(frozen), FREEZE_SECONDS)
        except OSError as error:
            if error.errno == errno.ENODEV:  # removed between open and what followed
                raise FileNotFoundError(errno.ENOENT, "the cgroup was removed", self.v2) from error
            raise
        if not reached:
            raise TimeoutError(
                f"cgroup {self.path} is not {'frozen' if frozen else 'thawed'} after {FREEZE_SECONDS:g} s"
            )

    def remove(self, seconds: float = tree.REMOVE_SECONDS) -> None:
        """Remove it and what is below it everywhere; no error when it is gone, EBUSY when it is not empty in time."""
        tree.remove_directories(self.directories, seconds)

    def oom_kills(self) -> int:
        """How many processes the OOM killer has taken, on v2 also from below; 0 when it is gone or nobody counts.

        The kernel counts a kill before it sends the signal: who has seen the process end reads the truth.
        """
        version = self.layout.version("memory")
        if not version:
            return 0
        file = "memory.events" if version == 2 else "memory.oom_control"
        try:
            return files.read_pairs(f"{self.directory('memory')}/{file}").get("oom_kill", 0)
        except FileNotFoundError:
            return 0
        except OSError as error:
            if error.errno == errno.ENODEV:  # removed between open and read
                return 0
            raise


def _check_usage(cgroup: Cgroup, resources: Mapping[str, Any]) -> None:
    """Refuse a memory limit below what is in use when the spec says so (`checkBeforeUpdate`), before it kills."""
    memory = resources.get("memory") or {}
    limit = memory.get("limit") or 0
    if limit <= 0 or not memory.get("checkBeforeUpdate"):
        return
    file = "memory.current" if cgroup.layout.version("memory") == 2 else "memory.usage_in_bytes"
    usage = int(files.read(f"{cgroup.directory('memory')}/{file}"))
    if usage > limit:
        raise InvalidResources(f"memory.limit {limit} is below the {usage} bytes that cgroup {cgroup.path} uses now")


def _await_event(path: str, key: str, value: int, seconds: float) -> bool:
    """Wait until `key` has `value` in a cgroup.events file; the kernel announces a change by POLLPRI."""
    deadline = time.monotonic() + seconds
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        poll = select.poll()
        poll.register(fd, select.POLLPRI)
        while f"{key} {value}" not in os.pread(fd, 4096, 0).decode().splitlines():
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            poll.poll(left * 1000)
        return True
    finally:
        os.close(fd)
