"""The pod's own part: namespaces that outlive every container, names for them, shared memory, settings, cgroup.

It is made by a process that leaves the node's net, ipc and uts namespaces for new ones; whoever enters those bears
containers in them without any setns. Only a mount namespace is not among them: the pins have to be seen by CNI plugins
on the host.
"""

from __future__ import annotations

import contextlib
import os
import socket

from runtime import podcgroup, recovery, state
from runtime.errors import InvalidSpec
from runtime.linux import mountapi, mounts, namespaces, syscalls, userns
from runtime.linux.cgroups import detect
from runtime.linux.failpoints import failpoint
from runtime.linux.procs import Process
from runtime.spec import SandboxSpec

NOT_FOR_PROGRAMS = mountapi.MOUNT_ATTR_NOSUID | mountapi.MOUNT_ATTR_NODEV | mountapi.MOUNT_ATTR_NOEXEC
HOSTNAME_MAX = 64


def own_kinds(spec: SandboxSpec) -> list[str]:
    """Which namespaces the pod has of its own. A pod on the node's network keeps the node's hostname too."""
    return [*(["net", "uts"] if spec.net == "pod" else []), *(["ipc"] if spec.ipc == "pod" else [])]


def own_flags(spec: SandboxSpec) -> int:
    """The same as CLONE_NEW* flags."""
    return sum(namespaces.CLONE_FLAGS[kind] for kind in own_kinds(spec))


def init_cgroup(spec: SandboxSpec) -> str:
    """Where the first process of a shared PID namespace has its cgroup."""
    return f"{spec.cgroup_parent or state.DEFAULT_CGROUP}/{spec.id}"


class Sandbox:
    """One pod's namespaces, mounts and cgroup; create() leaves the calling process in the namespaces."""

    def __init__(self, spec: SandboxSpec) -> None:
        self.spec = spec
        self.layout = detect()

    @property
    def netns_path(self) -> str:
        """The network namespace's name on the host; "" for the node's own."""
        return f"{self.spec.state_dir}/{state.NAMESPACES}/net" if self.spec.net == "pod" else ""

    def record(self, shim: Process, builder: Process) -> None:
        """Write down, before anything is made, who makes it and for whom."""
        own = [{"cgroup": init_cgroup(self.spec)}] if self.spec.pid == "pod" else []
        doc = {
            "shim": shim.to_json(),
            "builder": builder.to_json(),
            "layout": self.layout.to_json(),
            "cgroup_parent": self.spec.cgroup_parent,
            "own": own,
        }
        state.write_shim(self.spec.state_dir, doc)

    def create(self) -> None:
        """Make it all; when this raises, nothing is left. Raises OSError, InvalidSpec."""
        self._validate()
        directory = self.spec.state_dir
        with contextlib.ExitStack() as undo:
            undo.callback(self.destroy)
            for name in (state.NAMESPACES, state.CONTAINERS):
                os.mkdir(f"{directory}/{name}", 0o700)
            if self.spec.cgroup_parent:
                podcgroup.make(self.spec.cgroup_parent, self.spec.resources, self.layout, os.path.dirname(directory))
            failpoint("shim.create.before_namespaces")
            try:
                self._leave_node()
            except ValueError as error:
                raise InvalidSpec(str(error)) from error
            failpoint("shim.create.after_namespaces")
            if self.spec.ipc == "pod":
                self._mount_shm(f"{directory}/{state.SHM}")
            undo.pop_all()

    def _validate(self) -> None:
        try:
            for name in self.spec.sysctls:
                owner = namespaces.sysctl_namespace(name)
                if getattr(self.spec, owner) != "pod":
                    raise InvalidSpec(
                        f"sysctl {name!r} is the node's, because the pod has no {owner} namespace of its own"
                    )
        except ValueError as error:
            raise InvalidSpec(str(error)) from error
        if len(os.fsencode(self.spec.hostname)) > HOSTNAME_MAX:
            raise InvalidSpec(f"hostname {self.spec.hostname!r} has more than {HOSTNAME_MAX} bytes")

    def _leave_node(self) -> None:
        """Leave for new namespaces, pin them, and set what is set in them."""
        kinds = own_kinds(self.spec)
        if self.spec.userns is not None:
            self._enter_owned(kinds, self.spec.userns)
        elif kinds:
            syscalls.unshare(own_flags(self.spec))
            self._pin(kinds)
            self._set_sysctls()
        if "net" in kinds:
            namespaces.loopback_up()
            if self.spec.hostname:
                socket.sethostname(self.spec.hostname)

    def _enter_owned(self, kinds: list[str], maps: userns.Maps) -> None:
        """Enter namespaces that belong to a new user namespace, but not that one: what follows takes the node's power.

        Their sysctls are only their owner's to write (ipc_namespaces(7)), so its root does that.
        """
        with userns.holder(maps, own_flags(self.spec), self._set_sysctls) as (pid, pidfd):
            self._pin([state.USER, *kinds], pid)
            if kinds:
                syscalls.setns(pidfd, own_flags(self.spec))

    def _pin(self, kinds: list[str], pid: int | str = "self") -> None:
        for kind in kinds:
            namespaces.pin(kind, f"{self.spec.state_dir}/{state.NAMESPACES}/{kind}", pid=pid)

    def _set_sysctls(self) -> None:
        namespaces.set_sysctls(self.spec.sysctls.items())

    def _mount_shm(self, path: str) -> None:
        os.mkdir(path, 0o700)
        options = [("size", str(self.spec.shm_size)), ("mode", "1777")]
        if self.spec.userns is not None:
            options += [(kind, str(userns.host_id(lines, 0))) for kind, lines in self.spec.userns.items()]
        mount_fd = mounts.filesystem("tmpfs", "shm", options, NOT_FOR_PROGRAMS)
        try:
            mountapi.move_mount_at(mount_fd, path)
        finally:
            os.close(mount_fd)

    def destroy(self) -> None:
        """Undo create(), also a half-done one; idempotent."""
        recovery.unmount(self.spec.state_dir)
        if self.spec.cgroup_parent:
            podcgroup.remove_unused(self.spec.cgroup_parent, self.layout)
