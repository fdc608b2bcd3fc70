"""Pods and containers of this runtime in the interface's words; made only when a plugin is there to read them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from cri.proto import api_pb2 as cri
from cri.proto import nri_pb2 as nri
from cri.server.nri.adjusting import HOOK_NAMES
from cri.server.nri.resources import from_cri, from_oci
from cri.server.pods import Container, Sandbox
from cri.server.seccomp.choice import profile_of

_STATES: Final = {
    cri.CONTAINER_CREATED: nri.CONTAINER_CREATED,
    cri.CONTAINER_RUNNING: nri.CONTAINER_RUNNING,
    cri.CONTAINER_EXITED: nri.CONTAINER_STOPPED,
}
_PROFILES: Final = {
    cri.SecurityProfile.RuntimeDefault: nri.SecurityProfile.RUNTIME_DEFAULT,
    cri.SecurityProfile.Localhost: nri.SecurityProfile.LOCALHOST,
}


def pod_message(sandbox: Sandbox) -> nri.PodSandbox:
    """A pod. Its pid is the shim's, which lives in the pod's namespaces."""
    config, metadata = sandbox.config, sandbox.config.metadata
    message = nri.PodSandbox(
        id=sandbox.id,
        name=metadata.name,
        uid=metadata.uid,
        namespace=metadata.namespace,
        labels=config.labels,
        annotations=config.annotations,
        runtime_handler=sandbox.runtime_handler,
        pid=sandbox.pod.shim.pid if sandbox.pod is not None else 0,
        ips=sandbox.ips if not sandbox.stopped_at else (),
    )
    linux = message.linux
    linux.cgroup_parent = config.linux.cgroup_parent
    linux.cgroups_path = sandbox.cgroup
    linux.pod_overhead.CopyFrom(from_cri(config.linux.overhead))
    linux.pod_resources.CopyFrom(from_cri(config.linux.resources))
    linux.resources.CopyFrom(linux.pod_resources)
    if sandbox.netns and sandbox.pod is not None:
        linux.namespaces.add(type="network", path=sandbox.netns)
    return message


def container_message(container: Container) -> nri.Container:
    """A container as its OCI document and its state have it."""
    config, document = container.config, container.spec.oci
    process = document["process"]
    message = nri.Container(
        id=container.id,
        pod_sandbox_id=container.sandbox.id,
        name=config.metadata.name,
        state=_STATES[container.state],
        labels=config.labels,
        annotations=config.annotations,
        args=_texts(process["args"]),
        env=_texts(process["env"]),
        pid=container.pid if container.running else 0,
        created_at=container.created_at,
        started_at=container.started_at,
        finished_at=container.finished_at,
        exit_code=container.exit_code,
        status_reason=container.reason,
        status_message=container.message[:4096],
        CDI_devices=[nri.CDIDevice(name=device.name) for device in config.CDI_devices],
    )
    message.annotations.update(document.get("annotations") or {})
    for mount in document["mounts"]:
        message.mounts.add(
            destination=mount["destination"],
            type=mount.get("type", ""),
            source=mount.get("source", ""),
            options=mount.get("options") or (),
        )
    for limit in process.get("rlimits") or ():
        message.rlimits.add(**limit)
    message.user.uid, message.user.gid = process["user"]["uid"], process["user"]["gid"]
    message.user.additional_gids.extend(process["user"].get("additionalGids") or ())
    message.image.name = config.image.user_specified_image or config.image.image
    message.image.digest, message.image.config_digest = container.image_ref, container.image_id
    _hooks(message.hooks, document.get("hooks") or {})
    _linux(message.linux, container)
    return message


def _texts(lines: Iterable[str]) -> list[str]:
    """What is not UTF-8 (surrogates carry it through our documents) cannot stand in a protobuf string."""
    return [line.encode("utf-8", "surrogateescape").decode("utf-8", "replace") for line in lines]


def _hooks(message: nri.Hooks, document: Mapping[str, Any]) -> None:
    for kind, name in HOOK_NAMES.items():
        for hook in document.get(name) or ():
            entry = getattr(message, kind).add(path=hook["path"], args=hook["args"], env=hook["env"])
            if "timeout" in hook:
                entry.timeout.value = hook["timeout"]


def _linux(message: nri.LinuxContainer, container: Container) -> None:
    linux, process = container.spec.oci["linux"], container.spec.oci["process"]
    message.cgroups_path = linux["cgroupsPath"]
    message.resources.CopyFrom(from_oci(linux["resources"]))
    message.sysctl.update(linux.get("sysctl") or {})
    if process.get("oomScoreAdj") is not None:
        message.oom_score_adj.value = process["oomScoreAdj"]
    for device in linux["devices"]:
        entry = message.devices.add(
            path=device["path"], type=device["type"], major=device["major"], minor=device["minor"]
        )
        entry.file_mode.value = device["fileMode"]
        entry.uid.value, entry.gid.value = device["uid"], device["gid"]
    if container.sandbox.netns and container.sandbox.pod is not None:
        message.namespaces.add(type="network", path=container.sandbox.netns)
    for kind in ("mount", "cgroup"):
        message.namespaces.add(type=kind)
    _scheduling(message, process)
    _seccomp(message, container.config.linux.security_context)


def _scheduling(message: nri.LinuxContainer, process: Mapping[str, Any]) -> None:
    if asked := process.get("ioPriority"):
        message.io_priority.CopyFrom(
            nri.LinuxIOPriority(**{"class": nri.IOPrioClass.Value(asked["class"])}, priority=asked["priority"])
        )
    if asked := process.get("scheduler"):
        message.scheduler.CopyFrom(
            nri.LinuxScheduler(
                policy=asked["policy"],
                flags=asked["flags"],
                **{name: asked[name] for name in ("nice", "priority", "runtime", "deadline", "period")},
            )
        )


def _seccomp(message: nri.LinuxContainer, context: cri.LinuxContainerSecurityContext) -> None:
    profile = profile_of(context)
    if profile is None:
        message.seccomp_profile.profile_type = nri.SecurityProfile.UNCONFINED
    else:
        message.seccomp_profile.profile_type = _PROFILES[profile.profile_type]
        message.seccomp_profile.localhost_ref = profile.localhost_ref
