"""A sandbox and a container as crid knows them, in memory and as records.

State is not stored but follows from timestamps (ns since the epoch, 0: not yet):

    sandbox      ready_at ----------> READY ---stopped_at---> NOTREADY ---removed---> gone
    container    created_at -> CREATED -started_at-> RUNNING -finished_at-> EXITED ---removed---> gone

A sandbox whose ready_at is 0 is being made; it has no record, and no call shows it. Records of a container are two
documents: what never changes (configuration, runtime spec) and the small one that changes with every step.
"""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass, field
from typing import Any

from cri.proto import api_pb2 as api
from cri.server.encoding import decode, encode
from cri.server.security.user_namespaces import Maps, pod_maps
from cri.server.usage.metric_rows import Rows
from runtime.client import Pod
from runtime.linux.cgroups import Cgroup, Layout, detect
from runtime.linux.files import boot_id
from runtime.spec import ContainerSpec


@dataclass(slots=True, eq=False)
class Sandbox:
    """One pod sandbox."""

    id: str
    config: api.PodSandboxConfig
    runtime_handler: str
    #: Logical path of the pod's cgroup, in which the containers' cgroups are made.
    cgroup: str
    created_at: int
    ready_at: int = 0
    stopped_at: int = 0
    #: Path of the pinned network namespace; empty with the host's network.
    netns: str = ""
    ips: tuple[str, ...] = ()
    #: Where its cgroups are; a later start of crid may find itself in other ones.
    layout: Layout = field(default_factory=detect)
    #: The external runtime of its containers, as its shim was told of it; None for the built-in one.
    runtime: dict[str, Any] | None = None
    #: Its shim's process, for the day when what the shim has written of itself is gone.
    shim: dict[str, Any] | None = None
    #: Boot id under which it was made: after a reboot nothing of it runs.
    boot: str = field(default_factory=boot_id)
    #: The live shim; None once stopped or lost.
    pod: Pod | None = None
    #: Whether all that it had in the kernel is known to be undone; not kept, since undoing twice does no harm.
    ended: bool = False
    containers: dict[str, Container] = field(default_factory=dict)
    metrics: Rows = field(default_factory=Rows)
    #: Held by one stop or remove at a time.
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def ready(self) -> bool:
        return bool(self.ready_at) and not self.stopped_at

    @property
    def state(self) -> api.PodSandboxState:
        return api.SANDBOX_READY if self.ready else api.SANDBOX_NOTREADY

    @property
    def name(self) -> str:
        """namespace/name, as people know the pod."""
        return f"{self.config.metadata.namespace}/{self.config.metadata.name}"

    @property
    def hostname(self) -> str:
        """What containers see: the host's own name where they share its network namespace and name none."""
        return self.config.hostname or (socket.gethostname() if self.host_network else self.config.metadata.name[:64])

    @property
    def options(self) -> api.NamespaceOption:
        return self.config.linux.security_context.namespace_options

    @property
    def userns(self) -> Maps | None:
        """The mapping of its user namespace, None when it has none."""
        return pod_maps(self.options)

    @property
    def host_network(self) -> bool:
        return bool(self.options.network == api.NODE)

    def weight(self) -> int:
        """About how many bytes a message about it and its containers takes."""
        return self.config.ByteSize() + sum(container.weight() for container in self.containers.values())

    def to_record(self) -> dict[str, Any]:
        return {
            "config": encode(self.config),
            "runtime_handler": self.runtime_handler,
            "runtime": self.runtime,
            "shim": self.shim,
            "cgroup": self.cgroup,
            "created_at": self.created_at,
            "ready_at": self.ready_at,
            "stopped_at": self.stopped_at,
            "netns": self.netns,
            "ips": list(self.ips),
            "layout": self.layout.to_json(),
            "boot": self.boot,
        }

    @classmethod
    def from_record(cls, id: str, doc: dict[str, Any]) -> Sandbox:
        config = decode(api.PodSandboxConfig, doc["config"])
        layout = Layout.from_json(doc["layout"])
        names = ("runtime_handler", "cgroup", "created_at", "ready_at", "stopped_at", "netns", "boot")
        known = {name: doc[name] for name in names}
        runtime, shim = doc.get("runtime"), doc.get("shim")  # records of earlier versions have none
        return cls(id, config, **known, ips=tuple(doc["ips"]), layout=layout, runtime=runtime, shim=shim)


@dataclass(slots=True, eq=False)
class Container:
    """One container. What StartContainer executes was settled by CreateContainer and stands in `spec`."""

    id: str
    sandbox: Sandbox
    config: api.ContainerConfig
    spec: ContainerSpec
    image_id: str
    #: repository@digest where known, else the id.
    image_ref: str
    #: What people call the image, also where the request named it by its id.
    image_name: str
    user: api.LinuxContainerUser
    stop_signal: int
    #: As asked for, with later updates merged in.
    resources: api.LinuxContainerResources
    created_at: int
    #: Keys of what the image store keeps for it: the root file system first, then image volumes.
    snapshots: list[str]
    started_at: int = 0
    finished_at: int = 0
    exit_code: int = 0
    #: Of its first process, on the node; not kept, since its shim knows it.
    pid: int = 0
    reason: str = ""
    message: str = ""
    exited: asyncio.Event = field(default_factory=asyncio.Event)
    #: Runs out at the earliest deadline that any StopContainer call has set.
    kill_timer: asyncio.TimerHandle | None = None
    #: Held by one start or remove at a time; stops need none.
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    metrics: Rows = field(default_factory=Rows)
    #: The part of a ListContainers answer that never changes: lists copy it instead of building it.
    listed: api.Container = field(init=False)

    def __post_init__(self) -> None:
        self.listed = api.Container(
            id=self.id,
            pod_sandbox_id=self.sandbox.id,
            metadata=self.config.metadata,
            image=self.config.image,
            image_ref=self.image_id,
            image_id=self.image_id,
            created_at=self.created_at,
            labels=self.config.labels,
            annotations=self.config.annotations,
        )
        if self.finished_at:
            self.exited.set()

    @property
    def state(self) -> api.ContainerState:
        if self.finished_at:
            return api.CONTAINER_EXITED
        return api.CONTAINER_RUNNING if self.started_at else api.CONTAINER_CREATED

    @property
    def running(self) -> bool:
        return bool(self.started_at) and not self.finished_at

    @property
    def cgroup(self) -> str:
        """Its logical path; it is there from start to end."""
        return str(self.spec.oci["linux"]["cgroupsPath"])

    @property
    def oom_score_adj(self) -> int | None:
        """What its next process gets: as its spec has it after all updates."""
        score: int | None = self.spec.oci["process"].get("oomScoreAdj")
        return score

    @property
    def name(self) -> str:
        """namespace/pod/container, as people know it."""
        return f"{self.sandbox.name}/{self.config.metadata.name}"

    def weight(self) -> int:
        """About how many bytes a message about it takes."""
        return 4096 + self.config.ByteSize()

    def to_record(self) -> dict[str, Any]:
        return {
            "sandbox": self.sandbox.id,
            "config": encode(self.config),
            "spec": self.spec.to_json(),
            "image_id": self.image_id,
            "image_ref": self.image_ref,
            "image_name": self.image_name,
            "user": encode(self.user),
            "stop_signal": self.stop_signal,
            "created_at": self.created_at,
            "snapshots": self.snapshots,
        }

    def to_state_record(self) -> dict[str, Any]:
        names = ("started_at", "finished_at", "exit_code", "reason", "message")
        return {"resources": encode(self.resources), **{name: getattr(self, name) for name in names}}

    @classmethod
    def from_records(cls, id: str, sandbox: Sandbox, doc: dict[str, Any], state: dict[str, Any]) -> Container:
        config = decode(api.ContainerConfig, doc["config"])
        resources = state.pop("resources", None)
        known = {"started_at", "finished_at", "exit_code", "reason", "message"}
        return cls(
            id,
            sandbox,
            config,
            ContainerSpec.from_json(doc["spec"]),
            doc["image_id"],
            doc["image_ref"],
            doc.get("image_name", config.image.image),  # records of earlier versions have none
            decode(api.LinuxContainerUser, doc["user"]),
            doc["stop_signal"],
            decode(api.LinuxContainerResources, resources) if resources is not None else config.linux.resources,
            doc["created_at"],
            doc["snapshots"],
            **{name: value for name, value in state.items() if name in known},
        )


def cgroup_of(container: Container) -> Cgroup:
    """Where the kernel has it: its cgroup, in the hierarchies that its pod was made in."""
    return Cgroup(container.cgroup, container.sandbox.layout)
