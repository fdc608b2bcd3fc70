"""The pod's own part: namespaces that outlive every container, names for them, shared memory, settings, cgroup.

The shim leaves the node's net, ipc and uts namespaces for the pod's, so containers are born in them without setns.
Only a mount namespace of its own it must not have: the pins have to be seen by CNI plugins on the host.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator

from runtime import podcgroup, recovery, state
from runtime.errors import InvalidSpec
from runtime.linux import caps, mountapi, mounts, namespaces, syscalls
from runtime.linux.cgroups import Layout, detect
from runtime.linux.failpoints import failpoint
from runtime.linux.fds import Fd
from runtime.shim.loop import Loop
from runtime.spec import ContainerSpec, SandboxSpec

NOT_FOR_PROGRAMS = mountapi.MOUNT_ATTR_NOSUID | mountapi.MOUNT_ATTR_NODEV | mountapi.MOUNT_ATTR_NOEXEC
HOSTNAME_MAX = 64


class Sandbox:
    """One pod's namespaces, as made by its shim for itself."""

    def __init__(self, spec: SandboxSpec, loop: Loop) -> None:
        self.spec = spec
        self.loop = loop
        self.layout: Layout = detect()
        self.bounding = caps.bounding_mask()
        self.init: Fd | None = None  # the shared PID namespace's first process
        self._own_pidns = -1

    @property
    def netns_path(self) -> str:
        """The network namespace's name on the host; "" for the node's own."""
        return f"{self.spec.state_dir}/{state.NAMESPACES}/net" if self.spec.net == "pod" else ""

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
            self._leave_node()
            failpoint("shim.create.after_namespaces")
            self._own_pidns = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
            if self.spec.ipc == "pod":
                self._mount_shm(f"{directory}/{state.SHM}")
            namespaces.set_sysctls(self.spec.sysctls.items())
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
        """Leave for new namespaces and pin them. A pod on the node's network keeps the node's hostname too."""
        kinds = [kind for kind, mode in (("net", self.spec.net), ("ipc", self.spec.ipc)) if mode == "pod"]
        if "net" in kinds:
            kinds.append("uts")
        if not kinds:
            return
        syscalls.unshare(sum(namespaces.CLONE_FLAGS[kind] for kind in kinds))
        for kind in kinds:
            namespaces.pin(kind, f"{self.spec.state_dir}/{state.NAMESPACES}/{kind}")
        if "net" in kinds:
            namespaces.loopback_up()
            if self.spec.hostname:
                socket.sethostname(self.spec.hostname)

    def _mount_shm(self, path: str) -> None:
        os.mkdir(path, 0o700)
        options = [("size", str(self.spec.shm_size)), ("mode", "1777")]
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

    def cgroup_path(self, spec: ContainerSpec) -> str:
        """Where a container's cgroup is, as a logical path."""
        linux = spec.oci.get("linux") or {}
        return linux.get("cgroupsPath") or f"{self.spec.cgroup_parent or '/nodeagent'}/{spec.id}"

    @contextlib.contextmanager
    def birthplace(self, target: Fd | None = None) -> Iterator[int]:
        """Within the block children are born in the right PID namespace; yields the CLONE_NEW* flags to clone with.

        That is the one of `target` (a pidfd), else the pod's shared one, the node's, or a new one.
        """
        shared = target or self.init
        if shared is not None:
            with namespaces.children_in_pid_namespace(shared.fileno(), self._own_pidns):
                yield 0
        else:
            yield 0 if self.spec.pid == "node" else syscalls.CLONE_NEWPID
