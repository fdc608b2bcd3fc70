"""From an OCI config to the list of steps that build a container's filesystem tree.

Pure planning: nothing is touched here, so the order can be read, tested and printed.

    1. open bind sources          while mounts still have the host's propagation
    2. isolate                    nothing that follows reaches the host
    3. root filesystem, then the config's mounts in their order, all for the pod's user namespace if it has one
    4. devices and links          in a /dev that we mounted ourselves
    5. masked and read-only paths, read-only root

What follows, streams and pivot_root, is the same for all (runtime.init).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from runtime import devices
from runtime.errors import InvalidSpec
from runtime.linux.cgroups import Cgroup
from runtime.linux.mountoptions import MountOptions
from runtime.linux.overlay import OverlayRootfs
from runtime.linux.userns import host_id
from runtime.mounting import ActAsRoot, Bind, Isolate, MountFilesystem, MountOverlay, MountRoot, OpenSource
from runtime.protections import MaskPath, ReadonlyPath, ReadonlyRoot, WorkingDirectory
from runtime.spec import ContainerSpec
from runtime.tree import Step

TYPES: Final = frozenset({"bind", "cgroup", "devpts", "mqueue", "overlay", "proc", "sysfs", "tmpfs"})
#: Filesystems that take an SELinux label for all their files (mount(8), context=).
LABELLED: Final = frozenset({"tmpfs", "devpts"})
_HYBRID_ROOT: Final = MountOptions.parse(["nosuid", "nodev", "noexec", "mode=755", "size=64k"])


@dataclass(frozen=True, slots=True)
class _Parsed:
    """One entry of the config's `mounts`."""

    kind: str
    source: str
    target: str
    options: MountOptions
    idmapped: bool
    #: Ours, OCI has no word for it: the source is a path without links, and a link in it by now is an attack.
    resolved: bool


def tree_of(spec: ContainerSpec) -> dict[str, Any]:
    """What of a container's spec is about its filesystem tree, as JSON for plan()."""
    linux = spec.oci.get("linux") or {}
    return {
        "rootfs": spec.rootfs if isinstance(spec.rootfs, str) else spec.rootfs.to_json(),
        "readonly": spec.rootfs_readonly,
        "mounts": spec.oci.get("mounts") or [],
        "cwd": spec.oci["process"].get("cwd") or "/",
        "devices": linux.get("devices") or [],
        "devices_all": spec.devices_all,
        "masked": linux.get("maskedPaths") or [],
        "readonly_paths": linux.get("readonlyPaths") or [],
        "ids": id_maps(linux),
        "label": linux.get("mountLabel") or "",
    }


def id_maps(linux: Mapping[str, Any]) -> dict[str, list[list[int]]] | None:
    """`uidMappings` and `gidMappings` of an OCI config as runtime.linux.userns has them; None without a namespace."""
    maps = {
        kind: [[line["containerID"], line["hostID"], line["size"]] for line in linux.get(f"{kind}Mappings") or []]
        for kind in ("uid", "gid")
    }
    return maps if all(maps.values()) else None


def plan(tree: Mapping[str, Any], cgroup: Cgroup) -> list[Step]:
    """The steps for tree_of() a container. Raises InvalidSpec for a mount of unknown type or without absolute paths."""
    ids, label = tree["ids"], tree["label"]
    entries = [_parse(doc, ids) for doc in tree["mounts"]]
    for entry in entries:
        if label and entry.kind in LABELLED:
            entry.options.data += (("context", label),)
    mounts: list[Step] = []
    for entry in entries:
        mounts += _mount(entry, cgroup, label)
    steps: list[Step] = [
        OpenSource(bind.path, bind.options.recursive, bind.resolved) for bind in mounts if isinstance(bind, Bind)
    ]
    steps += [Isolate(), MountRoot(_root(tree["rootfs"], label))]
    if ids:
        steps.append(ActAsRoot(host_id(ids["uid"], 0), host_id(ids["gid"], 0)))
    steps += mounts
    steps += _devices(tree, entries)
    if tree["cwd"] != "/":
        steps.append(WorkingDirectory(tree["cwd"]))
    steps += [MaskPath(path, label) for path in tree["masked"]]
    steps += [ReadonlyPath(path) for path in tree["readonly_paths"]]
    if tree["readonly"]:
        steps.append(ReadonlyRoot())
    return steps


def _root(rootfs: Any, label: str) -> OverlayRootfs | str:
    """What to mount as the root; SELinux labels of an overlay's files come from the mount, as those of a tmpfs do."""
    if isinstance(rootfs, str):
        return rootfs
    return OverlayRootfs.from_json(rootfs).labelled(label)


def _parse(doc: Mapping[str, Any], ids: Mapping[str, Any] | None) -> _Parsed:
    target, options = doc.get("destination") or "", MountOptions.parse(doc.get("options") or ())
    if ids:
        options.data = tuple(_of_the_node(key, value, ids) for key, value in options.data)
    if not target.startswith("/"):
        raise InvalidSpec(f"mount destination {target!r} is not absolute")
    kind = "bind" if options.bind else doc.get("type") or "bind"
    source = doc.get("source") or ""
    if kind == "bind" and not source.startswith("/"):
        raise InvalidSpec(f"mount source {source!r} for {target} is not absolute")
    if kind not in TYPES:
        raise InvalidSpec(f"mount type {kind!r} for {target} is none of {', '.join(sorted(TYPES))}")
    return _Parsed(kind, source, target, options, bool(doc.get("uidMappings")), bool(doc.get("resolved")))


def _of_the_node(key: str, value: str | None, ids: Mapping[str, Any]) -> tuple[str, str | None]:
    """uid= and gid= of tmpfs and devpts are the container's ids in a config, the mounting process's in the kernel."""
    return (key, str(host_id(ids[key], int(value)))) if key in ids and value else (key, value)


def _mount(entry: _Parsed, cgroup: Cgroup, label: str) -> list[Step]:
    if entry.kind == "bind":
        return [Bind(entry.source, entry.target, entry.options, entry.idmapped, entry.resolved)]
    if entry.kind == "cgroup":
        return _cgroups(entry, cgroup)
    if entry.kind == "overlay":
        return [MountOverlay(entry.target, entry.options, label)]
    # A message queue file system takes no context=; its files get the label of whoever makes them.
    own = label if entry.kind == "mqueue" else ""
    return [MountFilesystem(entry.kind, entry.target, entry.options, entry.source, own)]


def _cgroups(entry: _Parsed, cgroup: Cgroup) -> list[Step]:
    """The container's own part of the hierarchies: cgroup2 seen from its namespace, or binds of the v1 directories."""
    if not cgroup.layout.v1:
        return [MountFilesystem("cgroup2", entry.target, entry.options)]
    steps: list[Step] = [MountFilesystem("tmpfs", entry.target, _HYBRID_ROOT)]
    for controller in cgroup.layout.v1:
        steps.append(Bind(cgroup.directory(controller), f"{entry.target}/{controller}", entry.options))
    if cgroup.v2:
        steps.append(Bind(cgroup.v2, f"{entry.target}/unified", entry.options))
    return steps


def _devices(tree: Mapping[str, Any], entries: Iterable[_Parsed]) -> list[Step]:
    """Nothing when /dev is a bind mount: those nodes are the host's, and making some there would change the host."""
    if any(entry.kind == "bind" and entry.target == "/dev" for entry in entries):
        return []
    steps: list[Step] = list(devices.DEFAULT)
    if tree["devices_all"]:
        steps.append(devices.HostDevices())
    steps += [devices.from_oci(doc) for doc in tree["devices"]]
    return steps
