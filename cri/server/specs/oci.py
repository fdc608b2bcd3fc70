"""A CRI container as an OCI runtime-spec 1.3 document: the request, the image and the sandbox brought together.

Nothing here acts; the shim does what the document says. Labels and annotations have no part in it: they are the
client's notes and must not steer the runtime (CVE-2023-6476, CVE-2024-3154, CVE-2026-53488). Those that may, because
the interface or the configuration says so, are picked out elsewhere (cri.server.cdi.names, cri.server.handlers).
"""

from __future__ import annotations

import functools
import glob
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cri.proto import api_pb2 as api
from cri.server.errors import InvalidRequest
from cri.server.security.capabilities import capability_sets
from cri.server.security.user_namespaces import Maps, oci_mappings
from cri.server.security.users import Identity
from cri.server.specs import process
from cri.server.specs.devices import DEFAULT_RULES, PRIVILEGED_RULES, device_config
from cri.server.specs.mounts import OciMount, base_mounts, etc_mounts, merge_mounts
from cri.server.specs.resources import oci_resources, oom_score_adj, without_swap

VERSION = "1.3.0"

#: What the kubelet masks by default, and RAPL (GHSA-7ww5-4wqc-m92c), for clients that say nothing.
MASKED_PATHS = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
]
#: Counters that tell what the processors do for others (GHSA-6fw5-f8r9-fgfm); the kubelet masks them for each.
THROTTLING = "/sys/devices/system/cpu/cpu*/thermal_throttle"
READONLY_PATHS = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a container finds in its pod: from the sandbox, not from the container's own request."""

    hostname: str
    #: Directory of resolv.conf, hosts, hostname.
    etc: Path
    shm: str
    #: Logical path of the container's cgroup.
    cgroup: str
    #: The mapping of the pod's user namespace.
    userns: Maps | None
    host_network: bool
    #: SELinux label of the container's files; empty on a host without.
    mount_label: str = ""
    #: Whether a privileged container gets the devices of the host.
    host_devices: bool = True
    #: Whether devices that are asked for belong to run_as_user and run_as_group.
    devices_owned: bool = False
    cgroup_writable: bool = False
    #: What an external runtime is to be told; allow-listed by its handler's configuration.
    annotations: Mapping[str, str] = field(default_factory=dict)


def oci_config(
    config: api.ContainerConfig,
    image: Mapping[str, Any],
    identity: Identity,
    around: Surroundings,
    volumes: Sequence[OciMount],
) -> dict[str, Any]:
    """The document. Blocks shortly where devices are asked for; raises InvalidRequest, NotFound."""
    context = config.linux.security_context
    return {
        "ociVersion": VERSION,
        "process": _process(config, image, identity, around),
        "root": {"path": "rootfs", "readonly": context.readonly_rootfs},
        "mounts": _mounts(config, around, volumes),
        "linux": _linux(config, around),
        **({"annotations": dict(around.annotations)} if around.annotations else {}),
    }


def _process(
    config: api.ContainerConfig, image: Mapping[str, Any], identity: Identity, around: Surroundings
) -> dict[str, Any]:
    context = config.linux.security_context
    args = process.arguments(config, image)
    env = process.environment(config, image, around.hostname, identity.home)
    process.checked(args, env)
    return {
        "terminal": config.tty,
        "user": {"uid": identity.uid, "gid": identity.gid, "additionalGids": list(identity.groups)},
        "args": args,
        "env": env,
        "cwd": process.working_directory(config, image),
        "capabilities": capability_sets(context.capabilities, context.privileged),
        "noNewPrivileges": context.no_new_privs,
        "oomScoreAdj": oom_score_adj(config.linux.resources.oom_score_adj),
    }


def _mounts(config: api.ContainerConfig, around: Surroundings, volumes: Sequence[OciMount]) -> list[OciMount]:
    context = config.linux.security_context
    base = base_mounts(
        privileged=context.privileged,
        shm=around.shm,
        cgroup_writable=around.cgroup_writable,
        # The devices and settings of the node: peers bind its /sys read-only there (KEP-5607).
        sys_writable=not (around.userns and around.host_network),
    )
    return merge_mounts([*base, *etc_mounts(around.etc, context.readonly_rootfs)], volumes)


def _linux(config: api.ContainerConfig, around: Surroundings) -> dict[str, Any]:
    context = config.linux.security_context
    resources = without_swap(oci_resources(config.linux.resources))
    nodes, rules = _devices(config, around)
    resources["devices"] = rules
    masked, readonly = guarded_paths(context, around.userns is not None)
    return {
        **oci_mappings(around.userns),
        **({"mountLabel": around.mount_label} if around.mount_label else {}),
        "resources": resources,
        "cgroupsPath": around.cgroup,
        "maskedPaths": masked,
        "readonlyPaths": readonly,
        "devices": nodes,
        "rootfsPropagation": _rootfs_propagation(config.mounts),
    }


def _devices(config: api.ContainerConfig, around: Surroundings) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    nodes: list[dict[str, Any]] = []
    everything = config.linux.security_context.privileged and around.host_devices
    rules = [*(PRIVILEGED_RULES if everything else DEFAULT_RULES)]
    for device in config.devices:
        made, allowed = device_config(device)
        nodes += [{**node, **_owner(config.linux.security_context, around)} for node in made]
        rules += allowed
    return nodes, rules


def _owner(context: api.LinuxContainerSecurityContext, around: Surroundings) -> dict[str, int]:
    """Whose a device is inside, as far as it is not as on the host; a user namespace shows the host's own node."""
    if not around.devices_owned or around.userns:
        return {}
    asked = {"uid": "run_as_user", "gid": "run_as_group"}
    return {ours: getattr(context, theirs).value for ours, theirs in asked.items() if context.HasField(theirs)}


def guarded_paths(context: api.LinuxContainerSecurityContext, userns: bool) -> tuple[list[str], list[str]]:
    """Masked and read-only paths; raises InvalidRequest.

    An empty list of a pod in its own user namespace is procMount: Unmasked, which Kubernetes allows there only
    (KEP-4265); elsewhere it is a client that left the choice to us.
    """
    if context.privileged:
        return [], []
    masked = list(context.masked_paths) or ([] if userns else [*MASKED_PATHS, *_those_like(THROTTLING)])
    readonly = list(context.readonly_paths) or ([] if userns else READONLY_PATHS)
    for path in (*masked, *readonly):
        if not path.startswith("/") or "\0" in path:
            raise InvalidRequest(f"masked or read-only path {path[:200]!r} is not an absolute path")
    return masked, readonly


@functools.cache
def _those_like(pattern: str) -> list[str]:
    return sorted(glob.glob(pattern))


def _rootfs_propagation(mounts: Sequence[api.Mount]) -> str:
    asked = {mount.propagation for mount in mounts}
    if api.PROPAGATION_BIDIRECTIONAL in asked:
        return "rshared"
    return "rslave" if api.PROPAGATION_HOST_TO_CONTAINER in asked else "rprivate"
