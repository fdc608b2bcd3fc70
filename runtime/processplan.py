"""A process of a container as a plan: everything looked up and checked, in numbers and strings.

crid makes it of the OCI `process` document, and sends it past the shim to the process itself, which has then nothing to
do but system calls. Whatever can be wrong with a request is found here, before anything is made.
"""

from __future__ import annotations

import resource
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from runtime.errors import InvalidSpec, StartError
from runtime.linux import seccomp
from runtime.linux.caps import CapabilitySets, bounding_mask, every_mask
from runtime.linux.userns import Maps, host_id

DEFAULT_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ID_MAX: Final = 2**32 - 2  # 2**32 - 1 means "unchanged" to setresuid(2)


class ProcessPlan(NamedTuple):
    """The plan; as JSON it is the list of its fields. `name` is for the session keyring, `seccomp` a file or "".

    `owner` is the id on the node that the streams are given to; all others are the container's own. `dropped` are the
    capabilities that leave the bounding set, which is full again in a user namespace. `apparmor` and `selinux` confine
    the program (`runtime.linux.lsm`), if not "".
    """

    name: str
    args: list[str]
    env: list[str]
    search: list[str]
    cwd: str
    uid: int
    gid: int
    groups: list[int]
    owner: int
    umask: int
    dropped: int
    bounding: int
    effective: int
    permitted: int
    ambient: int
    no_new_privs: bool
    seccomp: str
    rlimits: list[tuple[str, int, int, int]]
    terminal: bool
    oom_score_adj: int | None
    scheduling: dict[str, list[Any]]
    apparmor: str
    selinux: str


def plan_process(
    doc: Mapping[str, Any], name: str, seccomp_filter: str, *, terminal: bool, ids: Maps | None = None
) -> ProcessPlan:
    """From `process` of an OCI config; `ids` maps the pod's user namespace, if it has one.

    Raises StartError without a command, InvalidSpec, OSError for the filter.
    """
    args, env = _strings(doc, "args"), _strings(doc, "env")
    if not args:
        raise StartError("no command: neither the request nor the image has args")
    user = doc.get("user") or {}
    try:
        sets = CapabilitySets.from_oci(doc.get("capabilities") or {}, bounding_mask())
        owner = host_id(ids["uid"], _id(user.get("uid", 0))) if ids else _id(user.get("uid", 0))
        if seccomp_filter:
            seccomp.load(seccomp_filter)
    except ValueError as error:
        raise InvalidSpec(str(error)) from error
    return ProcessPlan(
        name=name,
        args=args,
        env=env,
        search=_search_path(env),
        cwd=_string(doc.get("cwd") or "/", "cwd"),
        uid=_id(user.get("uid", 0)),
        gid=_id(user.get("gid", 0)),
        groups=[_id(group) for group in user.get("additionalGids") or ()],
        owner=owner,
        umask=user["umask"] if user.get("umask") is not None else 0o022,
        dropped=(every_mask() if ids else bounding_mask()) & ~sets.bounding,
        bounding=sets.bounding,
        effective=sets.effective,
        permitted=sets.permitted,
        ambient=sets.ambient,
        no_new_privs=bool(doc.get("noNewPrivileges")),
        seccomp=seccomp_filter,
        rlimits=[_rlimit(entry) for entry in doc.get("rlimits") or ()],
        terminal=terminal,
        oom_score_adj=doc.get("oomScoreAdj"),
        scheduling={},
        apparmor=_string(doc.get("apparmorProfile") or "", "apparmorProfile"),
        selinux=_string(doc.get("selinuxLabel") or "", "selinuxLabel"),
    )


def _strings(doc: Mapping[str, Any], key: str) -> list[str]:
    return [_string(text, f"{key}:") for text in doc.get(key) or ()]


def _string(text: str, what: str) -> str:
    if "\0" in text:
        raise InvalidSpec(f"{what} {text!r} contains a NUL byte")
    return text


def _id(value: Any) -> int:
    """CVE-2024-40635 and kin: an id that does not fit must not wrap around to another one."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= ID_MAX:
        raise InvalidSpec(f"user or group id {value!r} is not a number between 0 and {ID_MAX}")
    return value


def _rlimit(entry: Mapping[str, Any]) -> tuple[str, int, int, int]:
    name = str(entry.get("type", ""))
    number = getattr(resource, name, None) if name.startswith("RLIMIT_") else None
    if not isinstance(number, int):
        raise InvalidSpec(f"unknown rlimit {name!r}")
    # The config's numbers are unsigned, and all ones is RLIM_INFINITY; Python's are signed.
    soft, hard = (-1 if entry[key] >= 2**63 else entry[key] for key in ("soft", "hard"))
    return name, number, soft, hard


def _search_path(env: list[str]) -> list[str]:
    """The last PATH counts. A relative directory is not searched: it would be the image's working directory."""
    path = next((entry[5:] for entry in reversed(env) if entry.startswith("PATH=")), DEFAULT_PATH)
    return [directory for directory in path.split(":") if directory.startswith("/")]
