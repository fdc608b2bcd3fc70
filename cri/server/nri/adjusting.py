"""The merged adjustment put into a container's OCI document, field by field, or refused.

Each field has one function, here, in adjusting_linux.py or in adjusting_limits.py. What it raises becomes an error
that names the plugin and the field: an adjustment that this runtime cannot carry out is never passed over.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from cri.proto import nri_pb2 as nri
from cri.server.cdi.edits import inject
from cri.server.cdi.names import requested_names
from cri.server.cdi.registry import Registry
from cri.server.errors import CriFault
from cri.server.nri import adjusting_limits as limits
from cri.server.nri import adjusting_linux as linux
from cri.server.nri.errors import NriFault
from cri.server.nri.merging import HOOK_KINDS
from cri.server.nri.owners import Owners
from cri.server.nri.refusal import Refusal
from cri.server.pods import Container
from cri.server.seccomp.compiled import Profiles
from cri.server.specs import process
from cri.server.specs.resources import oom_score_adj
from cri.server.specs.sources import look
from runtime.client import ContainerError
from runtime.linux.cgroups import CgroupError

Document = dict[str, Any]

HOOK_NAMES: Final = {kind: kind.split("_")[0] + kind.partition("_")[2].title() for kind in HOOK_KINDS}
HOOKS_MAX: Final = 64


def _annotations(adjust: nri.ContainerAdjustment, document: Document) -> None:
    annotations = document.setdefault("annotations", {})
    for key in adjust.annotations:
        if key.startswith("-"):
            annotations.pop(key[1:], None)
    annotations.update({key: value for key, value in adjust.annotations.items() if not key.startswith("-")})


def _env(adjust: nri.ContainerAdjustment, document: Document) -> None:
    lines = {line.partition("=")[0]: line for line in document["process"]["env"]}
    for pair in adjust.env:
        name = pair.key.removeprefix("-")
        if not name or "=" in name:
            raise Refusal(f"the name {pair.key[:80]!r} is empty or holds '='", pair.key)
        if pair.key.startswith("-"):
            lines.pop(name, None)
        else:
            lines[name] = f"{name}={pair.value}"
    process.checked(document["process"]["args"], lines.values())
    document["process"]["env"] = list(lines.values())


def _args(adjust: nri.ContainerAdjustment, document: Document) -> None:
    process.checked(adjust.args, document["process"]["env"])
    if adjust.args:
        document["process"]["args"] = list(adjust.args)


def _hooks(adjust: nri.ContainerAdjustment, document: Document) -> None:
    for kind, name in HOOK_NAMES.items():
        hooks = document.setdefault("hooks", {}).setdefault(name, [])
        hooks += [_hook(hook) for hook in getattr(adjust.hooks, kind)]
        if len(hooks) > HOOKS_MAX:
            raise Refusal(f"{len(hooks)} {name} hooks are more than {HOOKS_MAX}")


def _hook(hook: nri.Hook) -> Document:
    if not hook.path.startswith("/"):
        raise Refusal(f"the path {hook.path[:200]!r} is not absolute")
    if not os.path.exists(hook.path):
        raise Refusal(f"{hook.path} does not exist on this host")
    document: Document = {"path": hook.path, "args": list(hook.args), "env": list(hook.env)}
    if hook.HasField("timeout"):
        if hook.timeout.value <= 0:
            raise Refusal(f"the timeout of {hook.path} is {hook.timeout.value} s, but must be above 0")
        document["timeout"] = hook.timeout.value
    return document


def _here(adjust: nri.ContainerAdjustment, document: Document) -> None:
    """Refuse what the built-in runtime has no part in."""
    if any(getattr(adjust.hooks, kind) for kind in HOOK_KINDS):
        raise Refusal("the built-in runtime runs no OCI hooks; give the pod a handler with an external runtime")


def _elsewhere(adjust: nri.ContainerAdjustment, document: Document) -> None:
    """Refuse what an external runtime is told by others, or may not know and pass over."""
    if adjust.linux.namespaces:
        raise Refusal("an external runtime's containers have the namespaces of their pod", None, nri.Namespace)
    if adjust.linux.HasField("memory_policy"):
        raise Refusal("external runtimes need not know memory policies", None, nri.MemoryPolicy)


def _rlimits(adjust: nri.ContainerAdjustment, document: Document) -> None:
    given = {limit.type for limit in adjust.rlimits}
    kept = [limit for limit in document["process"].get("rlimits") or () if limit["type"] not in given]
    added = [{"type": limit.type, "hard": limit.hard, "soft": limit.soft} for limit in adjust.rlimits]
    for limit in added:
        linux.check_rlimit(limit)
    document["process"]["rlimits"] = [*kept, *added]


def _oom_score(adjust: nri.ContainerAdjustment, document: Document) -> None:
    document["process"]["oomScoreAdj"] = oom_score_adj(adjust.linux.oom_score_adj.value)


def _io_priority(adjust: nri.ContainerAdjustment, document: Document) -> None:
    asked = adjust.linux.io_priority
    if getattr(asked, "class") == nri.IOPRIO_CLASS_NONE:
        document["process"].pop("ioPriority", None)
        return
    if not 0 <= asked.priority <= 7:
        raise Refusal(f"the priority {asked.priority} is outside 0..7")
    name = nri.IOPrioClass.Name(getattr(asked, "class"))
    document["process"]["ioPriority"] = {"class": name, "priority": asked.priority}


def _scheduler(adjust: nri.ContainerAdjustment, document: Document) -> None:
    asked = adjust.linux.scheduler
    if asked.policy == nri.SCHED_NONE:
        document["process"].pop("scheduler", None)
        return
    document["process"]["scheduler"] = {
        "policy": nri.LinuxSchedulerPolicy.Name(asked.policy),
        "nice": asked.nice,
        "priority": asked.priority,
        "flags": [nri.LinuxSchedulerFlag.Name(flag) for flag in asked.flags],
        "runtime": asked.runtime,
        "deadline": asked.deadline,
        "period": asked.period,
    }
    linux.check_scheduler(document["process"]["scheduler"])


Step = Callable[[nri.ContainerAdjustment, Document], None]

#: Whether it is asked for, the owners' field, and how it is done. Devices stand before resources, which add to rules.
STEPS: Final[tuple[tuple[Callable[[nri.ContainerAdjustment], Any], int, Step], ...]] = (
    (lambda adjust: adjust.annotations, nri.Annotations, _annotations),
    (lambda adjust: adjust.env, nri.Env, _env),
    (lambda adjust: adjust.args, nri.Args, _args),
    (lambda adjust: adjust.HasField("hooks"), nri.OciHooks, _hooks),
    (lambda adjust: adjust.rlimits, nri.Rlimits, _rlimits),
    (lambda adjust: adjust.linux.HasField("oom_score_adj"), nri.OomScoreAdj, _oom_score),
    (lambda adjust: adjust.linux.HasField("io_priority"), nri.IoPriority, _io_priority),
    (lambda adjust: adjust.linux.HasField("scheduler"), nri.LinuxSched, _scheduler),
    (lambda adjust: adjust.linux.devices, nri.Devices, linux.devices),
    (lambda adjust: adjust.linux.HasField("memory_policy"), nri.MemoryPolicy, linux.memory_policy),
    (lambda adjust: adjust.linux.namespaces, nri.Namespace, linux.namespaces),
    (lambda adjust: adjust.linux.net_devices, nri.LinuxNetDevices, linux.net_devices),
    (lambda adjust: adjust.linux.HasField("rdt"), nri.RdtClosID, linux.rdt),
)


#: Steps that ask for files which a plugin has named.
_LOOKING: Final = frozenset({_hooks, linux.namespaces})


@dataclass(frozen=True, slots=True)
class Adjuster:
    """Carries out adjustments."""

    profiles: Profiles
    cdi: Registry

    async def apply(self, container: Container, adjust: nri.ContainerAdjustment, owners: Owners) -> None:
        """Change the container's spec, which nobody else knows yet. Raises NriFault."""
        document, naming = container.spec.oci, Naming(container, owners)
        where = _here if container.sandbox.runtime is None else _elsewhere
        await naming.of(nri.OciHooks, _done(where, adjust, container))
        for asked, field, step in STEPS:
            if asked(adjust):
                await naming.of(field, _done(step, adjust, container))
        if adjust.CDI_devices:
            await naming.of(nri.CdiDevices, self._cdi_devices(adjust, container))
        if adjust.mounts:
            await naming.of(nri.Mounts, linux.mounts(adjust, document, container.sandbox))
        if adjust.linux.sysctl:
            await naming.of(nri.Sysctl, linux.sysctls(adjust, document, container.sandbox))
        if adjust.linux.cgroups_path:
            await naming.of(nri.CgroupsPath, asyncio.to_thread(linux.cgroups_path, adjust, container))
        if adjust.linux.HasField("resources"):
            await naming.of(nri.MemLimit, limits.resources(adjust, container))
        if adjust.linux.HasField("seccomp_policy"):
            await naming.of(nri.SeccompPolicy, linux.seccomp(adjust, container.spec, self.profiles))

    async def _cdi_devices(self, adjust: nri.ContainerAdjustment, container: Container) -> None:
        names = requested_names((device.name for device in adjust.CDI_devices), {})
        await look(container.sandbox.id, inject, self.cdi, names, container.spec.oci)


async def _done(step: Step, adjust: nri.ContainerAdjustment, container: Container) -> None:
    if step in _LOOKING:
        await look(container.sandbox.id, step, adjust, container.spec.oci)
    else:
        step(adjust, container.spec.oci)


class Naming:
    """Puts the names of plugin and field into what a step raises."""

    def __init__(self, container: Container, owners: Owners) -> None:
        self._container, self._owners = container, owners

    async def of(self, field: int, step: Awaitable[None]) -> None:
        """Await a step; raises NriFault."""
        try:
            await step
        except (Refusal, CriFault, CgroupError, ContainerError, ValueError, OSError) as error:
            key = error.key if isinstance(error, Refusal) else None
            field = error.field if isinstance(error, Refusal) and error.field else field
            owner, name = self._owner(field, key), nri.Field.Name(nri.Field.ValueType(field))
            why = "; ".join([str(error), *getattr(error, "__notes__", ())])
            raise NriFault(
                f"NRI plugin {owner} adjusts {name} of container {self._container.name} in a way that cannot be "
                f"carried out here: {why}"
            ) from error

    def _owner(self, field: int, key: str | None) -> str:
        id = self._container.id
        entries = self._owners.keys(id, field)
        names: Mapping[str, None] = dict.fromkeys(entries.values())
        return self._owners.of(id, field, key) or self._owners.of(id, field) or ", ".join(names) or "(several)"
