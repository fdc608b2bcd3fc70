"""Volumes of a pod, by name and source. What a source means is the volume manager's affair."""

from __future__ import annotations

from typing import Any

from nodeagent.pods import names, quantity
from nodeagent.pods.fields import HOST_PATH_TYPES, VOLUME_SOURCES
from nodeagent.pods.problems import Findings, Path


def check_volumes(spec: dict[str, Any], findings: Findings) -> set[str]:
    """The names that containers may mount."""
    seen: set[str] = set()
    for index, volume in enumerate(spec.get("volumes") or []):
        path: Path = ("spec", "volumes", index)
        name = volume.get("name")
        if not name:
            findings.required((*path, "name"))
        elif why := names.label(name):
            findings.invalid((*path, "name"), name, why)
        elif name in seen:
            findings.duplicate((*path, "name"), name)
        seen.add(name)
        _check_source(volume, path, findings)
    return seen


def _check_source(volume: dict[str, Any], path: Path, findings: Findings) -> None:
    sources = [key for key in VOLUME_SOURCES if volume.get(key) is not None]
    if not sources:
        return findings.required(path, "must specify a volume type, such as emptyDir: {}")
    if len(sources) > 1:
        return findings.error((*path, sources[1]), f"Forbidden: the volume already has the type {sources[0]}")
    source = volume[sources[0]]
    path = (*path, sources[0])
    match sources[0]:
        case "hostPath":
            _check_host_path(source, path, findings)
        case "csi" if not source.get("driver"):
            findings.required((*path, "driver"))
        case "persistentVolumeClaim" if not source.get("claimName"):
            findings.required((*path, "claimName"))
        case "persistentVolumeClaim" if why := names.subdomain(source["claimName"]):
            findings.invalid((*path, "claimName"), source["claimName"], why)
        case "emptyDir" if source.get("sizeLimit") is not None and quantity.parse(source["sizeLimit"]) < 0:
            findings.invalid((*path, "sizeLimit"), source["sizeLimit"], "must not be negative")


def _check_host_path(source: dict[str, Any], path: Path, findings: Findings) -> None:
    place = source.get("path")
    if not place:
        findings.required((*path, "path"))
    elif not place.startswith("/"):
        findings.invalid((*path, "path"), place, "must be an absolute path")
    elif ".." in place.split("/"):
        findings.invalid((*path, "path"), place, 'must not contain ".."')
    if (source.get("type") or "") not in HOST_PATH_TYPES:
        findings.unsupported((*path, "type"), source["type"], HOST_PATH_TYPES)
