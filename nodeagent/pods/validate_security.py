"""Security contexts. What is refused here is what would leave a container less confined than its manifest says."""

from __future__ import annotations

import re
from typing import Any

from nodeagent.pods import names
from nodeagent.pods.problems import Findings, Path

_CAPABILITY = re.compile(r"[A-Za-z0-9_]{1,40}")
_IDS = ("runAsUser", "runAsGroup", "fsGroup")
_OF_HOST = {"hostNetwork": ("net.",), "hostIPC": ("kernel.shm", "kernel.msg", "kernel.sem", "fs.mqueue.")}
#: Sysctls that belong to a namespace of the pod (namespaces(7)); every other one would change the node.
NAMESPACED = ("net.", "kernel.shm", "kernel.msg", "kernel.sem", "fs.mqueue.")


def check_pod_security(spec: dict[str, Any], findings: Findings) -> None:
    context = spec.get("securityContext") or {}
    path: Path = ("spec", "securityContext")
    _check_ids(context, path, findings)
    _check_profiles(context, path, findings)
    for index, group in enumerate(context.get("supplementalGroups") or []):
        _check_id(group, (*path, "supplementalGroups", index), findings)
    for index, sysctl in enumerate(context.get("sysctls") or []):
        _check_sysctl(sysctl, spec, (*path, "sysctls", index), findings)
    if spec.get("shareProcessNamespace") and spec.get("hostPID"):
        findings.error(("spec", "shareProcessNamespace"), "Forbidden: may not be used together with hostPID")


def check_container_security(container: dict[str, Any], path: Path, findings: Findings) -> None:
    context = container.get("securityContext") or {}
    path = (*path, "securityContext")
    _check_ids(context, path, findings)
    _check_profiles(context, path, findings)
    for kind in ("add", "drop"):
        for index, name in enumerate((context.get("capabilities") or {}).get(kind) or []):
            if not _CAPABILITY.fullmatch(name):
                findings.invalid((*path, "capabilities", kind, index), name, "must be a capability such as NET_ADMIN")
    if context.get("allowPrivilegeEscalation") is False:
        here: Path = (*path, "allowPrivilegeEscalation")
        if context.get("privileged"):
            findings.invalid(here, False, "may not be false for a privileged container")
        if "SYS_ADMIN" in ((context.get("capabilities") or {}).get("add") or []):
            findings.invalid(here, False, "may not be false for a container with SYS_ADMIN")


def _check_ids(context: dict[str, Any], path: Path, findings: Findings) -> None:
    for key in _IDS:
        if context.get(key) is not None:
            _check_id(context[key], (*path, key), findings)


def _check_id(value: int, path: Path, findings: Findings) -> None:
    if not 0 <= value <= 2**31 - 1:
        findings.invalid(path, value, "must be from 0 to 2147483647")


def _check_profiles(context: dict[str, Any], path: Path, findings: Findings) -> None:
    for key in ("seccompProfile", "appArmorProfile"):
        profile = context.get(key)
        if profile is None:
            continue
        here: Path = (*path, key)
        local = profile.get("localhostProfile") or ""
        if not profile.get("type"):
            findings.required((*here, "type"))
        elif profile["type"] == "Localhost":
            if not local.strip():
                findings.required((*here, "localhostProfile"), "an empty name would leave the container unconfined")
            elif local.startswith("/") or ".." in local.split("/"):
                findings.invalid((*here, "localhostProfile"), local, 'must be a relative path without ".."')
        elif local:
            findings.invalid((*here, "localhostProfile"), local, "may only be set when type is Localhost")


def _check_sysctl(sysctl: dict[str, Any], spec: dict[str, Any], path: Path, findings: Findings) -> None:
    name = sysctl.get("name") or ""
    if not name:
        return findings.required((*path, "name"))
    if why := names.sysctl(name):
        return findings.invalid((*path, "name"), name, why)
    dotted = name.replace("/", ".")
    if not dotted.startswith(NAMESPACED):
        findings.error((*path, "name"), f"Forbidden: {name} belongs to the node, not to a namespace of the pod")
    for flag, prefixes in _OF_HOST.items():
        if spec.get(flag) and dotted.startswith(prefixes):
            findings.error((*path, "name"), f"Forbidden: with {flag} {name} would change the node")
    if not (sysctl.get("value") or "").isprintable():
        findings.invalid((*path, "value"), sysctl["value"], "must be printable")
