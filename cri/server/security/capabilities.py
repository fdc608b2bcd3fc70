"""The capability sets of a container: the ecosystem's default set, changed by what the request adds and drops."""

from __future__ import annotations

import functools
from collections.abc import Iterable

from cri.proto import api_pb2 as api
from cri.server.errors import InvalidRequest
from runtime.linux.caps import NAMES, bounding_mask

DEFAULT = frozenset(
    f"CAP_{name}"
    for name in [
        "CHOWN",
        "DAC_OVERRIDE",
        "FSETID",
        "FOWNER",
        "MKNOD",
        "NET_RAW",
        "SETGID",
        "SETUID",
        "SETFCAP",
        "SETPCAP",
        "NET_BIND_SERVICE",
        "SYS_CHROOT",
        "KILL",
        "AUDIT_WRITE",
    ]
)

Sets = dict[str, list[str]]


@functools.cache
def grantable() -> frozenset[str]:
    """The capabilities that this daemon can give away: its own bounding set, which no child can leave."""
    mask = bounding_mask()
    return frozenset(name for number, name in enumerate(NAMES) if mask >> number & 1)


def capability_sets(request: api.Capability, privileged: bool) -> Sets:
    """process.capabilities of the OCI spec; raises InvalidRequest for a name that is no capability.

    The inheritable set stays empty unless ambient capabilities are asked for, which need it (CVE-2022-24769).
    """
    if privileged:
        everything = _ordered(grantable())
        return {
            "bounding": everything,
            "effective": everything,
            "permitted": everything,
            "inheritable": [],
            "ambient": [],
        }
    add, drop, ambient = map(
        _normal, (request.add_capabilities, request.drop_capabilities, request.add_ambient_capabilities)
    )
    base = frozenset() if "ALL" in drop else grantable() if "ALL" in add else DEFAULT
    if "ALL" in ambient:
        ambient = grantable()
    # What is dropped by name stays dropped, whoever adds it; ALL in drop is a base that additions start from.
    held = ((base | add | ambient) - drop) & grantable()
    kept, raised = _ordered(held), _ordered(ambient & held)
    return {"bounding": kept, "effective": kept, "permitted": kept, "inheritable": raised, "ambient": raised}


def _normal(names: Iterable[str]) -> frozenset[str]:
    return frozenset(_full(name) for name in names)


def _full(name: str) -> str:
    upper = name.upper()
    if upper in ("ALL", "CAP_ALL"):
        return "ALL"
    full = upper if upper.startswith("CAP_") else f"CAP_{upper}"
    if full not in NAMES:
        raise InvalidRequest(f"{name[:80]!r} is no capability; see capabilities(7) for their names")
    return full


def _ordered(names: Iterable[str]) -> list[str]:
    return sorted(names, key=NAMES.index)
