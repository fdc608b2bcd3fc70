"""Qualified device names, `vendor.example/class=name`, and how a request names devices."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from cri.server.errors import InvalidRequest

ANNOTATION_PREFIX = "cdi.k8s.io/"
NAMES_MAX = 256
#: SPEC.md, "Kind" and "CDI Devices"
VENDOR = re.compile(r"[A-Za-z]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9])?")
CLASS = re.compile(r"[A-Za-z]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
DEVICE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.:-]{0,253}[A-Za-z0-9])?")


def split_kind(kind: str) -> tuple[str, str]:
    """Vendor and class; raises ValueError."""
    vendor, separator, device_class = kind.partition("/")
    if not separator or not VENDOR.fullmatch(vendor) or not CLASS.fullmatch(device_class):
        raise ValueError(f"kind {kind[:100]!r} is not of the form vendor.example/class")
    return vendor, device_class


def checked_name(name: str) -> str:
    """The name, if it is a qualified one; raises InvalidRequest."""
    kind, separator, device = name.partition("=")
    try:
        split_kind(kind)
    except ValueError:
        separator = ""
    if not separator or not DEVICE.fullmatch(device):
        raise InvalidRequest(f"CDI device {name[:200]!r} is not of the form vendor.example/class=name")
    return name


def requested_names(devices: Iterable[str], annotations: Mapping[str, str]) -> list[str]:
    """All devices of a request, each once: the field first, then the annotations `cdi.k8s.io/*` (a comma-separated
    list each), as peers take them. Raises InvalidRequest.
    """
    names = list(devices)
    for key, value in annotations.items():
        if key.startswith(ANNOTATION_PREFIX):
            names += value.split(",")
    found = list(dict.fromkeys(checked_name(name) for name in names))
    if len(found) > NAMES_MAX:
        raise InvalidRequest(f"{len(found)} CDI devices are asked for; {NAMES_MAX} are allowed")
    return found
