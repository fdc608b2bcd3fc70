"""PersistentVolumes and claims as values: what of their documents this agent reads (k8s.io/api/core/v1/types.go)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nodeagent.pods import names
from nodeagent.pods.fields import IN_TREE
from nodeagent.volumes.document import FieldError, Fields

ACCESS_MODES = ("ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod")
#: Sources of a PersistentVolume that can be mounted here.
SOURCES = ("csi", "hostPath")


@dataclass(frozen=True, slots=True)
class PersistentVolume:
    """`capacity` in bytes; `claim` is the namespace/name that it is reserved for, or empty."""

    name: str
    storage_class: str
    capacity: int
    access_modes: tuple[str, ...]
    labels: Mapping[str, str]
    claim: str
    mount_options: tuple[str, ...]
    source_kind: str
    source: Fields

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> PersistentVolume:
        """Raises FieldError."""
        fields = Fields(document)
        metadata, spec = fields.object("metadata"), fields.object("spec")
        kinds = [kind for kind in SOURCES if kind in spec]
        for other in (kind for kind in ("local", *IN_TREE) if kind in spec):
            raise FieldError(f"{spec.at(other)}: is not supported by this agent; use {' or '.join(SOURCES)}")
        if len(kinds) != 1:
            raise FieldError(f"spec: has to have one source of those served by this agent: {' or '.join(SOURCES)}")
        return cls(
            name=_checked(metadata.needed("name"), "metadata.name"),
            storage_class=spec.text("storageClassName"),
            capacity=spec.object("capacity").bytes("storage"),
            access_modes=_access_modes(spec),
            labels=metadata.map("labels"),
            claim=_reference(spec.object("claimRef")),
            mount_options=spec.texts("mountOptions"),
            source_kind=kinds[0],
            source=_filesystem(spec).object(kinds[0]),
        )

    @property
    def fingerprint(self) -> str:
        """Tell two volumes of one name apart: a document may be replaced by one about other data."""
        return hashlib.sha256(json.dumps([self.source_kind, self.source.plain()], sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Claim:
    """`key` is namespace/name, `wanted` bytes, `volume` the PersistentVolume that it names, or empty."""

    key: str
    storage_class: str
    wanted: int
    access_modes: tuple[str, ...]
    volume: str
    labels: Mapping[str, str]

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Claim:
        """Raises FieldError."""
        fields = Fields(document)
        metadata, spec = fields.object("metadata"), fields.object("spec")
        name = _checked(metadata.needed("name"), "metadata.name")
        namespace = _checked(metadata.text("namespace") or "default", "metadata.namespace")
        selector = spec.object("selector")
        if "matchExpressions" in selector:
            raise FieldError(f"{selector.at('matchExpressions')}: is not supported by this agent; use matchLabels")
        _filesystem(spec)
        return cls(
            key=f"{namespace}/{name}",
            storage_class=spec.text("storageClassName"),
            wanted=spec.object("resources").object("requests").bytes("storage"),
            access_modes=_access_modes(spec),
            volume=spec.text("volumeName"),
            labels=selector.map("matchLabels"),
        )


def _checked(name: str, path: str) -> str:
    if why := names.subdomain(name):
        raise FieldError(f"{path}: {why}")
    return name


def _access_modes(spec: Fields) -> tuple[str, ...]:
    modes = spec.texts("accessModes")
    if not modes or any(mode not in ACCESS_MODES for mode in modes):
        raise FieldError(f"{spec.at('accessModes')}: has to be a list of {', '.join(ACCESS_MODES)}")
    return modes


def _filesystem(spec: Fields) -> Fields:
    if spec.text("volumeMode", "Filesystem") != "Filesystem":
        raise FieldError(f"{spec.at('volumeMode')}: only Filesystem is supported by this agent; leave it out")
    return spec


def _reference(claim: Fields) -> str:
    return f"{claim.text('namespace') or 'default'}/{claim.needed('name')}" if claim.present() else ""
