"""Pods, claims and volumes as documents, for tests of volumes."""

from __future__ import annotations

from typing import Any


def pod(*volumes: dict[str, Any], uid: str = "uid-1", **spec: Any) -> dict[str, Any]:
    metadata = {"name": "web", "namespace": "default", "uid": uid}
    return {"kind": "Pod", "metadata": metadata, "spec": {"volumes": list(volumes), **spec}}


def inline(driver: str, name: str = "scratch", **source: Any) -> dict[str, Any]:
    return {"name": name, "csi": {"driver": driver, **source}}


def claimed(claim: str = "data", name: str = "data", **source: Any) -> dict[str, Any]:
    return {"name": name, "persistentVolumeClaim": {"claimName": claim, **source}}


def claim(name: str = "data", size: str = "1Gi", **spec: Any) -> dict[str, Any]:
    wanted = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}}
    return {"kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": wanted | spec}


def volume(name: str = "pv-1", size: str = "1Gi", driver: str = "d.example", **spec: Any) -> dict[str, Any]:
    offered = {
        "accessModes": ["ReadWriteOnce"],
        "capacity": {"storage": size},
        "csi": {"driver": driver, "volumeHandle": name, "volumeAttributes": {"createIfMissing": "true"}},
    }
    return {"kind": "PersistentVolume", "metadata": {"name": name, "labels": {"disk": name}}, "spec": offered | spec}
