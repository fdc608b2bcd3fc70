"""What crid asks the runtime for: specs of a sandbox, a container and an exec, as values that travel as JSON.

What the OCI runtime-spec has a word for stands in `ContainerSpec.oci`, an OCI 1.3 config document, in that word;
beside it stands only what it has none for: log path, stdin, layers of the root filesystem, the pod's namespaces.
The classes have no behaviour: both crid and the shims import this module.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from runtime.linux.overlay import OverlayRootfs

SHM_SIZE = 64 * 1024 * 1024
#: The number of the request in which a shim is told of its sandbox.
FIRST_REQUEST = 0


class _Document:
    """to_json/from_json for a dataclass whose fields are JSON values; unknown keys are ignored, as protocols grow."""

    __slots__ = ()
    __dataclass_fields__: Any

    def to_json(self) -> dict[str, Any]:
        """The form for messages and state files."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    @classmethod
    def from_json(cls, doc: Mapping[str, Any]) -> Self:
        """The inverse of to_json(); raises TypeError when a field without default is missing."""
        return cls(**{name: value for name, value in doc.items() if name in cls.__dataclass_fields__})


@dataclass(slots=True)
class SandboxSpec(_Document):
    """A pod's namespaces. `net`, `ipc`: "pod" or "node"; `pid`: "pod" (shared), "container" (one each) or "node".

    `state_dir` is the sandbox's own directory under the state directory (made by the caller, 0700). `cgroup_parent` is
    the pod's logical cgroup path, `resources` an OCI linux.resources document for it (empty: leave it alone).
    `userns` maps ids as {"uid": [[inside, outside, length], ...], "gid": [...]}; None shares the node's ids.
    `runtime` is the external OCI runtime that makes the containers: {"name", "path", "args"}; None for the built-in.
    """

    id: str
    state_dir: str
    hostname: str = ""
    net: str = "pod"
    ipc: str = "pod"
    pid: str = "container"
    sysctls: dict[str, str] = field(default_factory=dict)
    shm_size: int = SHM_SIZE
    cgroup_parent: str = ""
    resources: dict[str, Any] = field(default_factory=dict)
    userns: dict[str, list[list[int]]] | None = None
    runtime: dict[str, Any] | None = None


@dataclass(slots=True)
class ContainerSpec(_Document):
    """A container of a sandbox: an OCI config (`oci`: process, mounts, linux.*) and what that has no word for.

    `rootfs` is an overlay of layers or a directory. `log_path` empty discards the output. `seccomp_filter` is a file
    of compiled BPF, empty for none. `pid_target` is the id of the container whose PID namespace is shared (CRI TARGET);
    `pid_own` gives a container one of its own whatever the pod's others have (CRI CONTAINER).
    `devices_all` gives a privileged container every device node of the host. `external`: its pod has a `runtime`.
    """

    id: str
    sandbox_id: str
    oci: dict[str, Any]
    rootfs: OverlayRootfs | str
    rootfs_readonly: bool = False
    log_path: str = ""
    tty: bool = False
    stdin: bool = False
    stdin_once: bool = False
    seccomp_filter: str = ""
    pid_target: str = ""
    pid_own: bool = False
    devices_all: bool = False
    external: bool = False

    def to_json(self) -> dict[str, Any]:
        """The form for messages and state files."""
        doc = _Document.to_json(self)
        if isinstance(self.rootfs, OverlayRootfs):
            doc["rootfs"] = self.rootfs.to_json()
        return doc

    @classmethod
    def from_json(cls, doc: Mapping[str, Any]) -> Self:
        """The inverse of to_json()."""
        rootfs = doc["rootfs"]
        known = {name: value for name, value in doc.items() if name in cls.__dataclass_fields__}
        return cls(**{**known, "rootfs": rootfs if isinstance(rootfs, str) else OverlayRootfs.from_json(rootfs)})


@dataclass(slots=True)
class ExecSpec(_Document):
    """One more process in a running container. None means: as the container's own process has it.

    `user` is an OCI process.user document: uid, gid, additionalGids, umask.
    """

    id: str
    args: list[str]
    env: list[str] | None = None
    cwd: str | None = None
    user: dict[str, Any] | None = None
    tty: bool = False
    capabilities: dict[str, list[str]] | None = None
    no_new_privileges: bool | None = None
    seccomp_filter: str | None = None
    oom_score_adj: int | None = None
