"""From a ContainerSpec to an OCI bundle for somebody else's runtime: the config, and the mounts made for it beforehand.

    <state>/sandboxes/<id>/oci/<container>/
        config.json     written by view.py, which knows the PID namespace
        rootfs/         the overlay, visible in the view only
        mounts/<n>      sources that no runtime could mount itself, visible in the view only
        run/            the runtime's own --root
        log.json        what it said last

Made on crid's side, where work costs no pod any memory.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final

from runtime import state
from runtime.devices import host_devices
from runtime.linux.cgroups import Cgroup, Layout
from runtime.linux.mountoptions import MountOptions
from runtime.linux.overlay import OverlayRootfs
from runtime.spec import ContainerSpec

#: What all runtimes of the field accept: crun 1.8 refuses anything but 1.0, and readers ignore keys they do not know.
VERSION: Final = "1.0.2"
CGROUPS: Final = "/sys/fs/cgroup"
ROOTFS: Final = "rootfs"
MOUNTS: Final = "mounts"
RUN: Final = "run"
_HYBRID_ROOT: Final = ["nosuid", "nodev", "noexec", "mode=755", "size=64k"]


def make_bundle(state_dir: str, spec: ContainerSpec, cgroup: str) -> dict[str, Any]:
    """Make the bundle's directories; returns what view.py needs: config, rootfs, mounts to stage. Raises OSError."""
    directory = state.bundle_path(state_dir, spec.id)
    for name in ("", ROOTFS, MOUNTS, RUN):
        os.makedirs(f"{directory}/{name}", 0o700, exist_ok=True)
    config = config_of(spec, namespaces_of(state_dir), Cgroup(cgroup))
    label = config["linux"].get("mountLabel") or ""
    staged = stage(config, f"{directory}/{MOUNTS}", label)
    return {
        "config": config,
        "rootfs": spec.rootfs if isinstance(spec.rootfs, str) else spec.rootfs.labelled(label).to_json(),
        "staged": staged,
    }


def namespaces_of(state_dir: str) -> list[dict[str, str]]:
    """linux.namespaces of a container: the pod's by path, its own mount and cgroup namespaces; PID comes later."""
    try:
        pins = sorted(os.listdir(f"{state_dir}/{state.NAMESPACES}"))
    except FileNotFoundError:  # a pod that shares all of the node's
        pins = []
    words = {"net": "network"}
    shared = [{"type": words.get(pin, pin), "path": f"{state_dir}/{state.NAMESPACES}/{pin}"} for pin in pins]
    return [{"type": "mount"}, {"type": "cgroup"}, *shared]


def config_of(spec: ContainerSpec, namespaces: list[dict[str, str]], cgroup: Cgroup) -> dict[str, Any]:
    """The OCI config, but for the PID namespace. Limits are all in it, although crid has set them on the cgroup
    already: runtimes reset what they find there, and those that start virtual machines have to know.
    """
    linux = dict(spec.oci.get("linux") or {})
    resources = dict(linux.get("resources") or {})
    if cgroup.layout.v1:
        resources.pop("unified", None)  # v2 files beside v1 hierarchies: crid wrote them, a runtime would refuse
    devices = list(linux.get("devices") or [])
    if spec.devices_all:
        known = {device["path"] for device in devices}
        devices += [device for device in host_devices() if device["path"] not in known]
    rootfs = spec.rootfs if isinstance(spec.rootfs, str) else ROOTFS
    return {
        **spec.oci,
        "ociVersion": VERSION,
        "root": {"path": rootfs, "readonly": spec.rootfs_readonly},
        "process": {**spec.oci["process"], "terminal": spec.tty},
        "mounts": [each for mount in spec.oci.get("mounts") or [] for each in _mounts(mount, cgroup)],
        "linux": {
            **linux,
            "resources": resources,
            "devices": devices,
            "namespaces": namespaces,
            "cgroupsPath": cgroup.path,
        },
    }


def _mounts(mount: Mapping[str, Any], cgroup: Cgroup) -> list[dict[str, Any]]:
    """A mount of the spec; of v1 hierarchies the container's own part, and none that this project does not use."""
    if mount.get("type") != "cgroup" or not cgroup.layout.v1:
        return [dict(mount)]
    target, options = mount["destination"], ["rbind", "rprivate", *mount.get("options", ())]
    # Sources as the runtime will see them (view.py); a second mount of a hierarchy would be what runc takes for it.
    parts = {name: f"{CGROUPS}/{name}{cgroup.path}" for name in hierarchies(cgroup.layout)}
    if cgroup.v2:
        parts["unified"] = cgroup.v2
    root = {"destination": target, "type": "tmpfs", "source": "tmpfs", "options": _HYBRID_ROOT}
    binds = [
        {"destination": f"{target}/{name}", "type": "bind", "source": source, "options": options}
        for name, source in parts.items()
    ]
    return [root, *binds]


def stage(config: dict[str, Any], directory: str, label: str = "") -> list[dict[str, Any]]:
    """Replace in `config` the mounts that have to be made before the runtime runs; returns how to make each.

    `label` is the SELinux label of the container's files.

    Those are images as volumes, whose layers no mount(2) takes in one page of options; binds that share their mounts
    with the host, since in the view everything else is a slave of it; cgroup v2, which is not to be seen there; and
    volumes, since a runtime would walk to their sources by name, past what was put there since (CVE-2021-25741).
    """
    staged: list[dict[str, Any]] = []
    for mount in config["mounts"]:
        options = MountOptions.parse(mount.get("options") or ())
        place, resolved = f"{directory}/{len(staged)}", mount.pop("resolved", False)
        if mount.get("type") == "overlay":
            lower = tuple(value for key, value in options.data if key == "lowerdir+" and value)
            staged.append({"place": place, "overlay": OverlayRootfs(lower).labelled(label).to_json()})
            kept = [word for word in mount["options"] if not word.startswith("lowerdir+")]
            mount |= {"type": "bind", "source": place, "options": ["rbind", "rprivate", *kept]}
        elif resolved or _needs_host(mount):
            staged.append({"place": place, "source": mount["source"], "resolved": resolved})
            mount["source"] = place
    return staged


def hierarchies(layout: Layout) -> dict[str, str]:
    """Base directories of v1 hierarchies by the names that runtimes look for: `cpu,cpuacct` where two share one."""
    together: dict[str, list[str]] = {}
    for controller, directory in layout.v1.items():
        together.setdefault(directory, []).append(controller)
    return {",".join(controllers): directory for directory, controllers in together.items()}


def _needs_host(mount: Mapping[str, Any]) -> bool:
    if mount["destination"] == f"{CGROUPS}/unified":
        return True
    return not {"shared", "rshared"}.isdisjoint(mount.get("options") or ())
