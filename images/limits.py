"""Limits: how much an image may cost before it is refused.

A manifest, a config and a layer are written by strangers (CVE-2023-25153 was a config without a limit). The
defaults leave room for every image met in practice; what they stop is content made to exhaust a node.
"""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1 << 20
GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes in bytes, times in seconds."""

    manifest: int = 4 * MIB  # distribution-spec 1.1: registries take at least that
    config: int = 8 * MIB
    layers: int = 500  # the kernel's OVL_MAX_STACK
    blob: int = 64 * GIB
    unpacked: int = 256 * GIB
    entries: int = 4_000_000
    #: A layer may grow by this factor once it is past `ratio_free` bytes; gzip itself ends at 1032.
    ratio: int = 200
    ratio_free: int = GIB
    path: int = 4095  # PATH_MAX less its NUL
    depth: int = 256
    pax_header: int = MIB
    xattr: int = 64 << 10  # XATTR_SIZE_MAX
    sparse_segments: int = 1 << 20

    connect_seconds: float = 15.0
    silence_seconds: float = 30.0
    document_seconds: float = 60.0
    #: A blob must come at this many bytes a second on average, once `document_seconds` are over.
    slowest: int = 32 << 10
    attempts: int = 5
    first_pause: float = 0.2
    downloads: int = 3
    unpacks: int = 3
