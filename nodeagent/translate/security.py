"""Security contexts to CRI. A container's field wins over the pod's (v1.SecurityContext).

A container without a seccomp profile gets the runtime's default one, as a kubelet with seccompDefault does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cri.proto import api_pb2
from nodeagent.node import Node
from nodeagent.pods.pod import Pod

# What the ecosystem's runtimes hide or freeze in /proc and /sys unless procMount is Unmasked.
MASKED = (
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
)
READONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


class SecurityRefused(Exception):
    """The image and the security context contradict each other."""


@dataclass(frozen=True, slots=True)
class ImageUser:
    """Whom the image says its process runs as; `uid` is None when it names a user or nobody."""

    uid: int | None = None
    name: str = ""


def namespaces(pod: Pod) -> api_pb2.NamespaceOption:
    spec = pod.spec
    pid = api_pb2.POD if spec.get("shareProcessNamespace") else api_pb2.CONTAINER
    return api_pb2.NamespaceOption(
        network=api_pb2.NODE if spec.get("hostNetwork") else api_pb2.POD,
        pid=api_pb2.NODE if spec.get("hostPID") else pid,
        ipc=api_pb2.NODE if spec.get("hostIPC") else api_pb2.POD,
    )


def sandbox_security(pod: Pod) -> api_pb2.LinuxSandboxSecurityContext:
    context = pod.security
    made = api_pb2.LinuxSandboxSecurityContext(
        namespace_options=namespaces(pod),
        supplemental_groups=_groups(context),
        seccomp=api_pb2.SecurityProfile(profile_type=api_pb2.SecurityProfile.RuntimeDefault),
        privileged=any((each.get("securityContext") or {}).get("privileged") for each in pod.all_containers()),
    )
    _set_ids(made, context)
    return made


def container_security(
    pod: Pod, container: dict[str, Any], user: ImageUser, node: Node
) -> api_pb2.LinuxContainerSecurityContext:
    """Raises SecurityRefused."""
    context = pod.security | {
        key: value for key, value in (container.get("securityContext") or {}).items() if value is not None
    }
    _check_non_root(context, user)
    privileged = bool(context.get("privileged"))
    masked = not privileged and context.get("procMount") != "Unmasked"
    capabilities = context.get("capabilities") or {}
    made = api_pb2.LinuxContainerSecurityContext(
        capabilities=api_pb2.Capability(
            add_capabilities=capabilities.get("add") or [], drop_capabilities=capabilities.get("drop") or []
        ),
        privileged=privileged,
        namespace_options=namespaces(pod),
        readonly_rootfs=bool(context.get("readOnlyRootFilesystem")),
        supplemental_groups=_groups(context),
        supplemental_groups_policy=context.get("supplementalGroupsPolicy") or "Merge",
        no_new_privs=context.get("allowPrivilegeEscalation") is False,
        masked_paths=MASKED if masked else (),
        readonly_paths=READONLY if masked else (),
        seccomp=_seccomp(context, privileged, node),
    )
    _set_ids(made, context)
    if context.get("runAsUser") is None and context.get("runAsGroup") is not None:
        # The CRI wants a user beside a group: the one that the image would have run as anyway.
        _set_image_user(made, user)
    if context.get("appArmorProfile"):
        made.apparmor.CopyFrom(_apparmor(context["appArmorProfile"]))
    if context.get("seLinuxOptions"):
        made.selinux_options.CopyFrom(api_pb2.SELinuxOption(**context["seLinuxOptions"]))
    return made


def _check_non_root(context: dict[str, Any], user: ImageUser) -> None:
    if not context.get("runAsNonRoot"):
        return
    if context.get("runAsUser") is not None:
        if context["runAsUser"] == 0:
            raise SecurityRefused("runAsNonRoot is set and so is runAsUser: 0; change one of them")
        return
    if user.name:
        raise SecurityRefused(
            f'runAsNonRoot is set and the image\'s user is the name "{user.name}", which may be root: '
            "set runAsUser to its number"
        )
    if not user.uid:
        raise SecurityRefused("runAsNonRoot is set and the image runs as root: set runAsUser to another number")


def _set_ids(
    made: api_pb2.LinuxSandboxSecurityContext | api_pb2.LinuxContainerSecurityContext, context: dict[str, Any]
) -> None:
    if context.get("runAsUser") is None:
        return
    made.run_as_user.value = context["runAsUser"]
    if context.get("runAsGroup") is not None:
        made.run_as_group.value = context["runAsGroup"]


def _set_image_user(made: api_pb2.LinuxContainerSecurityContext, user: ImageUser) -> None:
    if user.name:
        made.run_as_username = user.name
    else:
        made.run_as_user.value = user.uid or 0


def _groups(context: dict[str, Any]) -> list[int]:
    groups = list(context.get("supplementalGroups") or [])
    if context.get("fsGroup") is not None and context["fsGroup"] not in groups:
        groups.append(context["fsGroup"])
    return groups


def _seccomp(context: dict[str, Any], privileged: bool, node: Node) -> api_pb2.SecurityProfile:
    profile = context.get("seccompProfile") or {"type": "RuntimeDefault"}
    kind = "Unconfined" if privileged else profile["type"]
    made = api_pb2.SecurityProfile(profile_type=kind)
    if kind == "Localhost":
        made.localhost_ref = str(node.kubelet_root / "seccomp" / profile["localhostProfile"])
    return made


def _apparmor(profile: dict[str, Any]) -> api_pb2.SecurityProfile:
    return api_pb2.SecurityProfile(
        profile_type=profile["type"],
        localhost_ref=profile.get("localhostProfile") or "",
    )
