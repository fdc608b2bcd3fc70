"""Containers of a pod: names, images, environment, ports, mounts, resources, hooks."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any

from nodeagent.pods import names, quantity
from nodeagent.pods.env_sources import FIELD_PATHS, RESOURCE_FIELDS, is_keyed_field
from nodeagent.pods.problems import Findings, Path
from nodeagent.pods.validate_security import check_container_security

#: Host ports in use: (IP, protocol, port).
Taken = set[tuple[str, str, int]]


def check_containers(spec: dict[str, Any], volumes: set[str], findings: Findings) -> None:
    if not spec.get("containers"):
        findings.required(("spec", "containers"), "a pod needs at least one container")
    seen: set[str] = set()
    taken: Taken = set()
    for group in ("initContainers", "containers"):
        for index, container in enumerate(spec.get(group) or []):
            path: Path = ("spec", group, index)
            _check_name(container, seen, path, findings)
            _check_image(container, path, findings)
            _check_restart(container, group, path, findings)
            _check_env(container, path, findings)
            _check_ports(container, spec, taken, path, findings)
            _check_mounts(container, volumes, path, findings)
            _check_resources(container, path, findings)
            _check_hooks(container, path, findings)
            _check_places(container, path, findings)
            check_container_security(container, path, findings)


def _check_name(container: dict[str, Any], seen: set[str], path: Path, findings: Findings) -> None:
    name = container.get("name")
    if not name:
        return findings.required((*path, "name"))
    if why := names.label(name):
        findings.invalid((*path, "name"), name, why)
    if name in seen:
        findings.duplicate((*path, "name"), name)
    seen.add(name)


def _check_image(container: dict[str, Any], path: Path, findings: Findings) -> None:
    image = container.get("image")
    if not image:
        findings.required((*path, "image"))
    elif any(character.isspace() for character in image):
        findings.invalid((*path, "image"), image, "must not have white space")


def _check_restart(container: dict[str, Any], group: str, path: Path, findings: Findings) -> None:
    if container.get("restartPolicy") and group == "containers":
        findings.error((*path, "restartPolicy"), "Forbidden: may be set for init containers only (sidecars)")
    sidecar = group == "initContainers" and container.get("restartPolicy")
    if group == "initContainers" and not sidecar and container.get("lifecycle"):
        findings.error((*path, "lifecycle"), "Forbidden: an init container that runs to its end has no hooks")


def _check_env(container: dict[str, Any], path: Path, findings: Findings) -> None:
    for index, variable in enumerate(container.get("env") or []):
        here: Path = (*path, "env", index)
        name = variable.get("name")
        if not name:
            findings.required((*here, "name"))
        elif why := names.env(name):
            findings.invalid((*here, "name"), name, why)
        source = variable.get("valueFrom")
        if source is None:
            continue
        if variable.get("value"):
            findings.invalid((*here, "valueFrom"), name, "may not be specified when `value` is not empty")
        _check_env_source(source, (*here, "valueFrom"), findings)


def _check_env_source(source: dict[str, Any], path: Path, findings: Findings) -> None:
    kinds = [kind for kind in ("fieldRef", "resourceFieldRef") if source.get(kind)]
    if len(kinds) != 1:
        return findings.required(path, "exactly one of fieldRef and resourceFieldRef")
    if kinds == ["fieldRef"]:
        field_path = source["fieldRef"].get("fieldPath") or ""
        if field_path not in FIELD_PATHS and not is_keyed_field(field_path):
            findings.unsupported((*path, "fieldRef", "fieldPath"), field_path, FIELD_PATHS)
    elif source["resourceFieldRef"].get("resource") not in RESOURCE_FIELDS:
        value = source["resourceFieldRef"].get("resource") or ""
        findings.unsupported((*path, "resourceFieldRef", "resource"), value, RESOURCE_FIELDS)


def _check_ports(
    container: dict[str, Any], spec: Mapping[str, Any], taken: Taken, path: Path, findings: Findings
) -> None:
    for index, port in enumerate(container.get("ports") or []):
        here: Path = (*path, "ports", index)
        if port.get("containerPort") is None:
            findings.required((*here, "containerPort"))
        for key in ("containerPort", "hostPort"):
            if port.get(key) is not None and not 1 <= port[key] <= 65535:
                findings.invalid((*here, key), port[key], "must be from 1 to 65535")
        if port.get("name") and (why := names.port(port["name"])):
            findings.invalid((*here, "name"), port["name"], why)
        _check_host_port(port, spec, taken, here, findings)


def _check_host_port(
    port: dict[str, Any], spec: Mapping[str, Any], taken: Taken, path: Path, findings: Findings
) -> None:
    address = port.get("hostIP") or ""
    try:
        ipaddress.ip_address(address or "0.0.0.0")
    except ValueError:
        findings.invalid((*path, "hostIP"), address, "must be an IP address")
    if not port.get("hostPort"):
        return
    if spec.get("hostNetwork") and port["hostPort"] != port.get("containerPort"):
        findings.invalid((*path, "hostPort"), port["hostPort"], "must match `containerPort` when `hostNetwork` is true")
    key = (address, port.get("protocol") or "TCP", port["hostPort"])
    if key in taken:
        findings.duplicate((*path, "hostPort"), port["hostPort"])
    taken.add(key)


def _check_mounts(container: dict[str, Any], volumes: set[str], path: Path, findings: Findings) -> None:
    seen: set[str] = set()
    for index, mount in enumerate(container.get("volumeMounts") or []):
        here: Path = (*path, "volumeMounts", index)
        if not mount.get("name"):
            findings.required((*here, "name"))
        elif mount["name"] not in volumes:
            findings.missing((*here, "name"), mount["name"])
        place = mount.get("mountPath")
        if not place:
            findings.required((*here, "mountPath"))
        elif not place.startswith("/") or ".." in place.split("/"):
            findings.invalid((*here, "mountPath"), place, 'must be an absolute path without ".."')
        elif place.rstrip("/") in seen:
            findings.invalid((*here, "mountPath"), place, "must be unique")
        seen.add((place or "").rstrip("/"))
        if mount.get("recursiveReadOnly") not in (None, "Disabled") and not mount.get("readOnly"):
            findings.error((*here, "recursiveReadOnly"), "Forbidden: may only be set together with readOnly: true")
        if mount.get("mountPropagation") == "Bidirectional" and not _privileged(container):
            findings.error((*here, "mountPropagation"), "Forbidden: Bidirectional needs a privileged container")


def _check_resources(container: dict[str, Any], path: Path, findings: Findings) -> None:
    resources = container.get("resources") or {}
    limits = resources.get("limits") or {}
    for kind in ("limits", "requests"):
        for name, value in (resources.get(kind) or {}).items():
            here: Path = (*path, "resources", kind, name)
            if name not in ("cpu", "memory", "ephemeral-storage") and not name.startswith("hugepages-"):
                findings.unsupported(here, name, ("cpu", "memory", "hugepages-<size>", "ephemeral-storage"))
            if quantity.parse(value) < 0:
                findings.invalid(here, value, "must be greater than or equal to 0")
            if kind == "requests" and name in limits and quantity.parse(value) > quantity.parse(limits[name]):
                findings.invalid(here, value, f"must be less than or equal to the {name} limit of {limits[name]}")


def _check_hooks(container: dict[str, Any], path: Path, findings: Findings) -> None:
    for hook in ("postStart", "preStop"):
        handler = (container.get("lifecycle") or {}).get(hook)
        if handler is None:
            continue
        here: Path = (*path, "lifecycle", hook)
        kinds = [kind for kind in ("exec", "sleep") if handler.get(kind) is not None]
        if len(kinds) != 1:
            findings.required(here, "exactly one of exec and sleep")
        elif kinds == ["exec"] and not handler["exec"].get("command"):
            findings.required((*here, "exec", "command"))
        elif kinds == ["sleep"] and not 0 <= (handler["sleep"].get("seconds") or 0) <= 3600:
            findings.invalid((*here, "sleep", "seconds"), handler["sleep"]["seconds"], "must be from 0 to 3600")


def _check_places(container: dict[str, Any], path: Path, findings: Findings) -> None:
    place = container.get("terminationMessagePath")
    if place and (not place.startswith("/") or ".." in place.split("/")):
        findings.invalid((*path, "terminationMessagePath"), place, 'must be an absolute path without ".."')


def _privileged(container: dict[str, Any]) -> bool:
    return bool((container.get("securityContext") or {}).get("privileged"))
