"""What the shim's children are born into: the pod's namespaces, seen from the shim that lives in them."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from runtime.linux import syscalls
from runtime.linux.cgroups import Layout, detect
from runtime.linux.fds import Fd
from runtime.linux.userns import Maps
from runtime.shim.birth import Birth
from runtime.shim.loop import Loop
from runtime.spec import SandboxSpec
from runtime.status import Status


class Home:
    """The sandbox's spec, the loop, and the PID namespaces that children can be born in."""

    __slots__ = ("_own_pidns", "doc", "init", "layout", "loop", "pid", "state_dir", "userns", "watched")

    def __init__(self, loop: Loop) -> None:
        """Made in the zygote, where everything that all pods have alike can be made."""
        self.loop = loop
        self.layout: Layout = detect()
        self.doc: dict[str, Any] = {}  # until there is a pod
        self.init: Fd | None = None  # pidfd of a shared PID namespace's first process
        self.watched = False  # whether a container of the pod has CAP_SYS_PTRACE (`runtime.arrival`)
        self._own_pidns = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)

    def settle(self, doc: dict[str, Any]) -> None:
        """Become the home of the pod whose SandboxSpec this is, as JSON."""
        self.doc = doc
        self.state_dir: str = doc["state_dir"]
        self.pid: str = doc["pid"]
        self.userns: Maps | None = doc["userns"]

    @property
    def spec(self) -> SandboxSpec:
        """Made for those who ask, which is rare: most of a shim's life needs no more than the fields above."""
        return SandboxSpec.from_json(self.doc)

    def bear(
        self, birth: Birth, body: Callable[[Status], None], flags: int, cgroup: int, target: Fd | None = None
    ) -> None:
        """Begin a birth in the right PID namespace: that of `target` (a pidfd), the pod's, the node's, or a new one.

        With CLONE_NEWPID in `flags` it is a new one in any case.
        setns(2) into a PID namespace moves only later children, so it is undone at once. That saves the second fork
        that entering a PID namespace is known for. Raises OSError.
        """
        shared = None if flags & syscalls.CLONE_NEWPID else target or self.init
        if shared is None:
            birth.begin(body, flags if self.pid == "node" else flags | syscalls.CLONE_NEWPID, cgroup)
            return
        syscalls.setns(shared.fileno(), syscalls.CLONE_NEWPID)
        try:
            birth.begin(body, flags, cgroup)
        finally:
            self.return_home()

    def return_home(self) -> None:
        """Let children be born in the node's PID namespace again."""
        syscalls.setns(self._own_pidns, syscalls.CLONE_NEWPID)
