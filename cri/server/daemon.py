"""The parts of a running crid, as every call gets them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path

from cni.network import Cni
from cri.proto import api_pb2 as api
from cri.server.cdi.registry import Registry
from cri.server.checkpoint.criu import Criu
from cri.server.config import Config
from cri.server.events import Events
from cri.server.exits import Exits
from cri.server.handlers import Handlers
from cri.server.janitor import Janitor
from cri.server.joins import Joins
from cri.server.nri.nri import Nri
from cri.server.pods import Container, Sandbox
from cri.server.seccomp.compiled import Profiles
from cri.server.security.accounts import AccountCache
from cri.server.security.apparmor import AppArmor
from cri.server.security.selinux import Selinux
from cri.server.security.user_namespaces import UserNamespaces
from cri.server.store import Store
from cri.server.streaming import StreamingServer
from cri.server.usage.cgroups import Rates
from cri.server.usage.layers import LayerUsage
from images import ImageStore, Progress
from runtime.client import Pod, Runtime, ShimLost
from runtime.linux.ledger import Effect, Ledger
from runtime.linux.records import Records


@dataclass(slots=True)
class Daemon:
    """What assembly.py puts together and the calls work with."""

    config: Config
    store: Store
    records: Records
    ledger: Ledger
    runtime: Runtime
    images: ImageStore
    cni: Cni
    events: Events
    exits: Exits
    profiles: Profiles
    userns: UserNamespaces
    apparmor: AppArmor
    selinux: Selinux
    handlers: Handlers
    cdi: Registry
    streaming: StreamingServer
    layers: LayerUsage
    nri: Nri
    criu: Criu
    rates: Rates = field(default_factory=Rates)
    janitor: Janitor = field(default_factory=Janitor)
    accounts: AccountCache = field(default_factory=AccountCache)
    sandboxes_under_way: Joins[str] = field(default_factory=lambda: Joins("pod sandbox"))
    containers_under_way: Joins[str] = field(default_factory=lambda: Joins("container"))
    restores_under_way: Joins[api.RestorePodResponse] = field(default_factory=lambda: Joins("pod sandbox"))
    #: How far the pulls under way are, by the name that was asked for; the CRI shows it in Status, verbose.
    pulls: dict[str, Progress] = field(default_factory=dict)
    #: Snapshots that no container had when crid started.
    orphans: list[str] = field(default_factory=list)
    #: What checkpoints and restores had on disk that crid's end interrupted.
    leftovers: list[Effect] = field(default_factory=list)
    #: Containers whose start may have been under way when crid ended, locked until tidying has taken that back.
    half_started: list[Container] = field(default_factory=list)
    #: Sandboxes whose shims did not answer at once when crid started (cri.server.recovery).
    adopting: set[asyncio.Task[None]] = field(default_factory=set)
    #: Whether what a former run has left is out of the way of new pods (cri.server.tidying).
    tidied: asyncio.Event = field(default_factory=asyncio.Event)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)

    def sandbox_directory(self, id: str) -> Path:
        """Where a sandbox keeps what dies with the boot: sockets, pins, /etc files."""
        return self.config.state / "sandboxes" / id


def pod_of(sandbox: Sandbox) -> Pod:
    """The shim of a sandbox; raises ShimLost once it is stopped or gone."""
    if sandbox.pod is None:
        raise ShimLost(
            f"sandbox {sandbox.id[:13]} of pod {sandbox.name} has no shim any more; remove it and run it again"
        )
    return sandbox.pod
