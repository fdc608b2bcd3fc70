"""Versions of the CNI specification: which we speak, and which one to speak with a network."""

from __future__ import annotations

import functools
from typing import Any, Final

from cni.errors import IncompatibleVersion, InvalidConfig

SUPPORTED: Final = ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
CURRENT: Final = SUPPORTED[-1]
#: A configuration that names no version is of the time when there was one.
UNSPOKEN: Final = "0.1.0"


@functools.lru_cache(maxsize=64)
def parse(version: str) -> tuple[int, int, int]:
    """ "1.0" is (1, 0, 0); raises InvalidConfig for what is no version."""
    parts = (version or UNSPOKEN).split(".")
    if len(parts) > 3 or not all(part.isascii() and part.isdecimal() for part in parts):
        raise InvalidConfig(f"cniVersion {version!r} is not a version", f"write one of {', '.join(SUPPORTED)}")
    major, minor, micro = (*(int(part) for part in parts), 0, 0)[:3]
    return major, minor, micro


@functools.lru_cache(maxsize=256)
def at_least(version: str, other: str) -> bool:
    """Whether `version` is `other` or newer."""
    return parse(version) >= parse(other)


def select(doc: dict[str, Any]) -> str:
    """The highest version of a configuration's `cniVersion` and `cniVersions` that we speak (SPEC.md, section 1).

    Raises IncompatibleVersion when there is none, InvalidConfig when the keys hold something else than versions.
    """
    named = doc.get("cniVersion", "")
    listed = doc.get("cniVersions", [])
    if not isinstance(named, str) or not isinstance(listed, list) or not all(isinstance(v, str) for v in listed):
        raise InvalidConfig("cniVersion must be a string and cniVersions a list of strings")
    offered = [version for version in (named, *listed) if version] or [UNSPOKEN]
    spoken = [version for version in offered if _canonical(version) in SUPPORTED]
    if not spoken:
        raise IncompatibleVersion(
            f"no common version of CNI: the configuration asks for {', '.join(offered)}",
            f"spoken here: {', '.join(SUPPORTED)}",
        )
    return _canonical(max(spoken, key=parse))


def _canonical(version: str) -> str:
    return ".".join(str(part) for part in parse(version))
