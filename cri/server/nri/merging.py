"""The answers of all plugins to one request as a single one, each plugin seeing what those before it have changed.

What a plugin adds is claimed in its name (owners.py); a key that begins with "-" takes an entry away, so that another
one may take its place. The rules are those of github.com/containerd/nri, pkg/adaptation; where it leaves both an entry
and its removal in the answer, here the later word counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, MutableMapping
from functools import partial
from typing import Any, Final

from cri.proto import nri_pb2 as nri
from cri.server.nri.errors import NriFault
from cri.server.nri.owners import Owners
from cri.server.nri.resources import copy_set_fields

#: Fields of LinuxContainerAdjustment that have one owner, and where plugins see them in a LinuxContainer.
_SINGLE: Final = (
    ("oom_score_adj", nri.OomScoreAdj, "oom_score_adj"),
    ("io_priority", nri.IoPriority, "io_priority"),
    ("seccomp_policy", nri.SeccompPolicy, "seccomp_policy"),
    ("scheduler", nri.LinuxSched, "scheduler"),
    ("memory_policy", nri.MemoryPolicy, ""),
)
_RDT: Final = (
    ("clos_id", nri.RdtClosID),
    ("schemata", nri.RdtSchemata),
    ("enable_monitoring", nri.RdtEnableMonitoring),
)
HOOK_KINDS: Final = ("prestart", "create_runtime", "create_container", "start_container", "poststart", "poststop")


class Updates:
    """What plugins want changed of containers that exist, one update for each container."""

    def __init__(self, owners: Owners, *, forbidden: str = "") -> None:
        """`forbidden` is the container that is being created: that one is adjusted, not updated."""
        self._owners = owners
        self._forbidden = forbidden
        self.of: dict[str, nri.ContainerUpdate] = {}

    def add(self, updates: Iterable[nri.ContainerUpdate], plugin: str) -> None:
        """Raises NriFault for a conflict, unless its update may fail."""
        for update in updates:
            id = update.container_id
            if id == self._forbidden:
                raise NriFault(f"NRI plugin {plugin} asks for an update of the container that is being created")
            merged = self.of.get(id) or nri.ContainerUpdate(container_id=id, ignore_failure=True)
            trial = nri.LinuxResources()
            trial.CopyFrom(merged.linux.resources)
            try:
                copy_set_fields(update.linux.resources, trial, partial(self._claim, id, plugin))
            except NriFault:
                if not update.ignore_failure:
                    raise
                continue
            merged.linux.resources.CopyFrom(trial)
            merged.ignore_failure = merged.ignore_failure and update.ignore_failure
            self.of[id] = merged

    def _claim(self, id: str, plugin: str, field: int, key: str | None) -> None:
        self._owners.claim(id, field, plugin, key)


class Adjustments:
    """The adjustment of one container that is being created; `request` is kept as the next plugin is to see it."""

    def __init__(self, request: nri.CreateContainerRequest) -> None:
        self.adjust = nri.ContainerAdjustment()
        self.owners = Owners()
        self.updates = Updates(self.owners, forbidden=request.container.id)
        self._container = request.container
        self._id = request.container.id

    def add(self, response: nri.CreateContainerResponse, plugin: str) -> None:
        """Take in a plugin's answer; raises NriFault."""
        theirs, ours, seen = response.adjust, self.adjust, self._container
        self._map(theirs.annotations, ours.annotations, seen.annotations, nri.Annotations, plugin)
        self._entries(theirs, ours, seen, "mounts", "destination", nri.Mounts, plugin)
        self._environment(theirs, plugin)
        self._arguments(list(theirs.args), plugin)
        self._hooks(theirs.hooks, plugin)
        for limit in theirs.rlimits:
            self._claim(nri.Rlimits, plugin, limit.type)
            ours.rlimits.append(limit)
            seen.rlimits.append(limit)
        for device in theirs.CDI_devices:
            self._claim(nri.CdiDevices, plugin, device.name)
            ours.CDI_devices.append(device)
        if theirs.HasField("linux"):
            self._linux(theirs.linux, plugin)
        self.updates.add(response.update, plugin)

    def _linux(self, theirs: nri.LinuxContainerAdjustment, plugin: str) -> None:
        ours, seen = self.adjust.linux, self._container.linux
        self._entries(theirs, ours, seen, "devices", "path", nri.Devices, plugin)
        for target in (ours.resources, seen.resources):
            copy_set_fields(theirs.resources, target, lambda field, key: self._claim(field, plugin, key, again=True))
        if theirs.cgroups_path:
            self._claim(nri.CgroupsPath, plugin)
            ours.cgroups_path = seen.cgroups_path = theirs.cgroups_path
        for name, field, shown in _SINGLE:
            if theirs.HasField(name):
                self._claim(field, plugin)
                getattr(ours, name).CopyFrom(getattr(theirs, name))
                if shown:
                    getattr(seen, shown).CopyFrom(getattr(theirs, name))
        self._namespaces(theirs, plugin)
        self._map(theirs.sysctl, ours.sysctl, seen.sysctl, nri.Sysctl, plugin)
        self._net_devices(theirs, plugin)
        self._rdt(theirs.rdt, plugin)

    def _claim(self, field: int, plugin: str, key: str | None = None, *, again: bool = False) -> None:
        if again and self.owners.of(self._id, field, key) == plugin:
            return
        self.owners.claim(self._id, field, plugin, key)

    def _map(
        self,
        theirs: MutableMapping[str, str],
        ours: MutableMapping[str, str],
        seen: MutableMapping[str, str],
        field: int,
        plugin: str,
    ) -> None:
        for key in [key.removeprefix("-") for key in theirs if key.startswith("-")]:
            self.owners.clear(self._id, field, plugin, key)
            for mapping in (ours, seen):
                mapping.pop(key, None)
            ours[f"-{key}"] = ""
        for key, value in theirs.items():
            if not key.startswith("-"):
                self._claim(field, plugin, key)
                ours[key] = seen[key] = value

    def _entries(self, theirs: Any, ours: Any, seen: Any, name: str, key: str, field: int, plugin: str) -> None:
        """Lists whose entries have a key of their own: mounts, devices."""
        removed = [getattr(each, key).removeprefix("-") for each in getattr(theirs, name) if _marked(each, key)]
        added = [each for each in getattr(theirs, name) if not _marked(each, key)]
        for entry in removed:
            self.owners.clear(self._id, field, plugin, entry)
        gone = {*removed, *(f"-{entry}" for entry in removed)}
        _keep(getattr(ours, name), lambda each: getattr(each, key) not in gone)
        _keep(
            getattr(seen, name), lambda each: getattr(each, key) not in {*gone, *(getattr(new, key) for new in added)}
        )
        for entry in removed:
            getattr(ours, name).add(**{key: f"-{entry}"})
        for each in added:
            self._claim(field, plugin, getattr(each, key))
            getattr(ours, name).append(each)
            getattr(seen, name).append(each)

    def _environment(self, theirs: nri.ContainerAdjustment, plugin: str) -> None:
        removed = {pair.key.removeprefix("-") for pair in theirs.env if pair.key.startswith("-")}
        added = [pair for pair in theirs.env if not pair.key.startswith("-")]
        for key in removed:
            self.owners.clear(self._id, nri.Env, plugin, key)
        _keep(self.adjust.env, lambda pair: pair.key.removeprefix("-") not in removed)
        changed = removed | {pair.key for pair in added}
        lines = [line for line in self._container.env if line.partition("=")[0] not in changed]
        self.adjust.env.extend(nri.KeyValue(key=f"-{key}") for key in sorted(removed))
        for pair in added:
            self._claim(nri.Env, plugin, pair.key)
            self.adjust.env.append(pair)
            lines.append(f"{pair.key}={pair.value}")
        self._container.env[:] = lines

    def _arguments(self, args: list[str], plugin: str) -> None:
        if not args:
            return
        if not args[0]:  # an empty first argument says: whatever others have set
            self.owners.clear(self._id, nri.Args, plugin)
            args = args[1:]
        self._claim(nri.Args, plugin)
        self.adjust.args[:] = args
        self._container.args[:] = args

    def _hooks(self, hooks: nri.Hooks, plugin: str) -> None:
        if not any(getattr(hooks, kind) for kind in HOOK_KINDS):
            return
        self.owners.join(self._id, nri.OciHooks, plugin)
        self.adjust.hooks.MergeFrom(hooks)
        self._container.hooks.MergeFrom(hooks)

    def _namespaces(self, theirs: nri.LinuxContainerAdjustment, plugin: str) -> None:
        for namespace in theirs.namespaces:
            kind = namespace.type.removeprefix("-")
            self._claim(nri.Namespace, plugin, kind)
            self.adjust.linux.namespaces.append(namespace)
            _keep(self._container.linux.namespaces, partial(_of_other_type, kind))
            if kind == namespace.type:
                self._container.linux.namespaces.append(namespace)

    def _net_devices(self, theirs: nri.LinuxContainerAdjustment, plugin: str) -> None:
        for name, device in theirs.net_devices.items():
            self._claim(nri.LinuxNetDevices, plugin, name.removeprefix("-"))
            self.adjust.linux.net_devices[name].CopyFrom(device)

    def _rdt(self, rdt: nri.LinuxRdt, plugin: str) -> None:
        if rdt.remove:
            for _, field in _RDT:
                self.owners.clear(self._id, field, plugin)
            self.adjust.linux.rdt.Clear()
            self.adjust.linux.rdt.remove = True
        for name, field in _RDT:
            if rdt.HasField(name):
                self._claim(field, plugin)
                getattr(self.adjust.linux.rdt, name).CopyFrom(getattr(rdt, name))


def _marked(message: Any, key: str) -> bool:
    return str(getattr(message, key)).startswith("-")


def _of_other_type(kind: str, namespace: nri.LinuxNamespace) -> bool:
    return namespace.type != kind


def _keep(repeated: Any, wanted: Callable[[Any], bool]) -> None:
    kept = [each for each in repeated if wanted(each)]
    del repeated[:]
    repeated.extend(kept)
