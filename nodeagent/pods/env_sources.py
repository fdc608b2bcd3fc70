"""What env[].valueFrom may refer to. Source: k8s.io/kubernetes/pkg/fieldpath and the downward API's documentation."""

from __future__ import annotations

import re

FIELD_PATHS = (
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "metadata.labels['<KEY>']",
    "metadata.annotations['<KEY>']",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
)

RESOURCE_FIELDS = ("limits.cpu", "limits.memory", "requests.cpu", "requests.memory")

_KEYED = re.compile(r"metadata\.(labels|annotations)\['([^']+)'\]")


def is_keyed_field(field_path: str) -> bool:
    return _KEYED.fullmatch(field_path) is not None


def keyed_field(field_path: str) -> tuple[str, str]:
    """("labels" or "annotations", key) of metadata.labels['key']. Raises ValueError for another path."""
    match = _KEYED.fullmatch(field_path)
    if match is None:
        raise ValueError(f"{field_path} is not a label or annotation")
    return match[1], match[2]
