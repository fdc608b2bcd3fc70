"""The fields of an adjustment that are Linux's own; see adjusting.py."""

from __future__ import annotations

import asyncio
import os
import posixpath
import resource
from typing import Any, Final

from cri.proto import nri_pb2 as nri
from cri.server.nri.refusal import Refusal
from cri.server.pods import Container, Sandbox
from cri.server.seccomp.compiled import Profiles
from cri.server.seccomp.oci import as_oci
from cri.server.seccomp.rules import resolve
from cri.server.security.sysctls import checked_sysctls
from cri.server.specs.mounts import in_order
from cri.server.specs.sources import look
from runtime.linux.cgroups import Cgroup
from runtime.linux.mountoptions import MountOptions
from runtime.linux.scheduling import memory_policy_of, scheduler_of
from runtime.spec import ContainerSpec

Document = dict[str, Any]

MOUNT_TYPES: Final = frozenset({"bind", "devpts", "mqueue", "proc", "sysfs", "tmpfs"})
#: Namespaces that a container can have of its own or join; the others are the pod's, or every container's own anyway.
NAMESPACES: Final = frozenset({"network", "ipc", "uts"})
OWN_ANYWAY: Final = frozenset({"mount", "cgroup"})


async def mounts(adjust: nri.ContainerAdjustment, document: Document, sandbox: Sandbox) -> None:
    """Mounts in the place of those at the same destination."""
    entries = {posixpath.normpath(mount["destination"]): mount for mount in document["mounts"]}
    for mount in adjust.mounts:
        entries.pop(posixpath.normpath(mount.destination.removeprefix("-")), None)
    for mount in adjust.mounts:
        if not mount.destination.startswith("-"):
            destination = posixpath.normpath(mount.destination)
            entries[destination] = await _mount(mount, destination, sandbox)
    document["mounts"] = in_order(entries.values())


async def _mount(mount: nri.Mount, destination: str, sandbox: Sandbox) -> Document:
    options, key = MountOptions.parse(mount.options), mount.destination
    kind = "bind" if options.bind else mount.type or "bind"
    if not destination.startswith("/") or destination == "/":
        raise Refusal(f"destination {key[:200]!r} is not an absolute path below the root", key)
    if kind not in MOUNT_TYPES:
        raise Refusal(f"mount type {kind[:40]!r} at {destination} is none of {', '.join(sorted(MOUNT_TYPES))}", key)
    if kind == "bind":
        if options.data:
            raise Refusal(f"option {options.data[0][0][:80]!r} at {destination} means nothing for a bind mount", key)
        if not mount.source.startswith("/") or not await look(sandbox.id, os.path.exists, mount.source):
            raise Refusal(f"source {mount.source[:200]!r} of {destination} does not exist on this host", key)
    return {
        "destination": destination,
        "type": kind,
        "source": mount.source or kind,
        # A bind without a word about what is below it is meant with it, as in every OCI runtime.
        "options": [*mount.options] if kind != "bind" or options.bind else ["rbind", *mount.options],
    }


def devices(adjust: nri.ContainerAdjustment, document: Document) -> None:
    """Nodes and their cgroup rules."""
    linux = document["linux"]
    for device in adjust.linux.devices:
        path = device.path.removeprefix("-")
        gone = [node for node in linux["devices"] if node["path"] == path]
        linux["devices"] = [node for node in linux["devices"] if node["path"] != path]
        numbers = [(node["type"], node["major"], node["minor"]) for node in gone]
        rules = linux["resources"]["devices"]
        linux["resources"]["devices"] = [
            rule for rule in rules if (rule.get("type"), rule.get("major"), rule.get("minor")) not in numbers
        ]
    for device in adjust.linux.devices:
        if not device.path.startswith("-"):
            linux["devices"].append(_node(device))
            linux["resources"]["devices"].append(_rule(device))


def _node(device: nri.LinuxDevice) -> Document:
    if device.type not in ("c", "b", "u", "p"):
        raise Refusal(f"type {device.type[:20]!r} of {device.path[:200]} is none of c, b, u, p", device.path)
    if not device.path.startswith("/") or posixpath.normpath(device.path) != device.path:
        raise Refusal(f"{device.path[:200]!r} is no plain absolute path", device.path)
    return {
        "path": device.path,
        "type": device.type,
        "major": device.major,
        "minor": device.minor,
        "fileMode": device.file_mode.value & 0o7777 if device.HasField("file_mode") else 0o666,
        "uid": device.uid.value,
        "gid": device.gid.value,
    }


def _rule(device: nri.LinuxDevice) -> Document:
    kind = {"u": "c", "p": "c"}.get(device.type, device.type)
    return {"allow": True, "type": kind, "major": device.major, "minor": device.minor, "access": "rwm"}


def cgroups_path(adjust: nri.ContainerAdjustment, container: Container) -> None:
    """A place elsewhere; its parent is somebody's already, so that what we make we can remove."""
    path = adjust.linux.cgroups_path
    cgroup = Cgroup(path, container.sandbox.layout)
    parent = posixpath.dirname(path)
    if parent == "/" or not all(os.path.isdir(each) for each in Cgroup(parent, cgroup.layout).directories):
        raise Refusal(f"the parent of {path} does not exist in every hierarchy; make it, or name one that does")
    if cgroup.exists():
        raise Refusal(f"{path} exists: a container needs a cgroup of its own")
    container.spec.oci["linux"]["cgroupsPath"] = path


async def sysctls(adjust: nri.ContainerAdjustment, document: Document, sandbox: Sandbox) -> None:
    """Of the namespaces that the pod's containers share: a plugin speaks for the pod here."""
    values = {key: value for key, value in adjust.linux.sysctl.items() if not key.startswith("-")}
    wanted = document["linux"].setdefault("sysctl", {})
    for key in adjust.linux.sysctl:
        wanted.pop(key.removeprefix("-"), None)
    wanted.update(checked_sysctls(values, sandbox.options))


async def seccomp(adjust: nri.ContainerAdjustment, spec: ContainerSpec, profiles: Profiles) -> None:
    """The policy compiled, in the place of the one that the request has named."""
    policy = adjust.linux.seccomp_policy
    profile: Document = {
        "defaultAction": policy.default_action,
        "architectures": list(policy.architectures),
        "flags": list(policy.flags),
        "listenerPath": policy.listener_path,
        "syscalls": [_syscall(rule) for rule in policy.syscalls],
    }
    if policy.HasField("default_errno"):
        profile["defaultErrnoRet"] = policy.default_errno.value
    capabilities = frozenset(spec.oci["process"]["capabilities"].get("bounding") or ())
    if spec.external:
        spec.oci["linux"]["seccomp"] = as_oci(resolve(profile, capabilities))
    else:
        spec.seccomp_filter = await asyncio.to_thread(profiles.filter_path, profile, capabilities)


def _syscall(rule: nri.LinuxSyscall) -> Document:
    args = [{"index": arg.index, "value": arg.value, "valueTwo": arg.value_two, "op": arg.op} for arg in rule.args]
    document: Document = {"names": list(rule.names), "action": rule.action, "args": args}
    if rule.HasField("errno_ret"):
        document["errnoRet"] = rule.errno_ret.value
    return document


def namespaces(adjust: nri.ContainerAdjustment, document: Document) -> None:
    """A network, IPC or UTS namespace other than the pod's: a new one, or the one at a path."""
    entries = {each["type"]: each for each in document["linux"].get("namespaces") or ()}
    for asked in adjust.linux.namespaces:
        kind = asked.type
        if kind in OWN_ANYWAY and not asked.path:
            continue
        if kind not in NAMESPACES:
            what = "leave its" if kind.startswith("-") else "change its"
            raise Refusal(f"a container cannot {what} {kind.removeprefix('-')[:40]} namespace here", kind)
        if document["linux"].get("uidMappings"):
            raise Refusal("the pod has a user namespace, which owns the namespaces of its containers", kind)
        if asked.path and not os.path.exists(asked.path):
            raise Refusal(f"there is no {kind} namespace at {asked.path[:200]!r}", kind)
        entries[kind] = {"type": kind, "path": asked.path}
    document["linux"]["namespaces"] = list(entries.values())


def net_devices(adjust: nri.ContainerAdjustment, document: Document) -> None:
    """Refused, apart from taking away what is not there: network devices are given to pods by CNI here."""
    if names := [name for name in adjust.linux.net_devices if not name.startswith("-")]:
        raise Refusal(f"network device {names[0][:40]!r} cannot be moved into a container; use CNI for it", names[0])


def rdt(adjust: nri.ContainerAdjustment, document: Document) -> None:
    """Refused, apart from its removal."""
    asked = adjust.linux.rdt
    for name, field in (("clos_id", nri.RdtClosID), ("schemata", nri.RdtSchemata)):
        if asked.HasField(name):
            raise Refusal("RDT (resctrl) is not supported", None, field)
    if asked.enable_monitoring.value:
        raise Refusal("RDT (resctrl) is not supported", None, nri.RdtEnableMonitoring)


def memory_policy(adjust: nri.ContainerAdjustment, document: Document) -> None:
    """set_mempolicy(2) for the container's processes."""
    asked = adjust.linux.memory_policy
    policy = {
        "mode": nri.MpolMode.Name(asked.mode),
        "nodes": asked.nodes,
        "flags": [nri.MpolFlag.Name(flag) for flag in asked.flags],
    }
    memory_policy_of(policy)
    document["linux"]["memoryPolicy"] = policy


def check_scheduler(document: Document) -> None:
    """Raises ValueError for what sched_setattr(2) would not take."""
    scheduler_of(document)


def check_rlimit(document: Document) -> None:
    """Raises Refusal for a limit without meaning."""
    if not document["type"].startswith("RLIMIT_") or not hasattr(resource, document["type"]):
        raise Refusal(f"{document['type'][:40]!r} is no resource limit", document["type"])
    if document["soft"] > document["hard"]:
        raise Refusal(f"{document['type']}: soft {document['soft']} is above hard {document['hard']}", document["type"])
