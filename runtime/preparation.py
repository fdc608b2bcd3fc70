"""What crid does for a container before its shim clones it: the record on disk, and the cgroup with its limits.

It stands on crid's side because it is much work that happens once: crid is warm and large anyway, while a shim keeps
every page that it touches for as long as the pod lives. All of it blocks, shortly; call it in a thread.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

from runtime import recovery, state
from runtime.errors import InvalidSpec
from runtime.linux.cgroups import Cgroup, detect
from runtime.linux.failpoints import failpoint
from runtime.spec import ContainerSpec

_PLAIN: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")


@dataclass(frozen=True, slots=True)
class Prepared:
    """A container that only has to be cloned: the request to the shim, and the spec for the container's init."""

    request: dict[str, Any]
    blob: bytes
    state_dir: str

    def undo(self, error: BaseException) -> None:
        """Take everything back after `error`; what cannot be taken back becomes a note on it."""
        try:
            recovery.remove_container(self.state_dir, self.request["container"], detect())
        except OSError as trouble:
            error.add_note(f"and what was prepared for it could not be removed: {trouble}")


def prepare(state_dir: str, spec: ContainerSpec) -> Prepared:
    """Record the container, create its cgroup, apply its limits. When this raises, nothing is left.

    Raises InvalidSpec for an id that is no file name or has been used, CgroupError, OSError.
    """
    if not spec.id or not _PLAIN.issuperset(spec.id) or spec.id[0] == ".":
        raise InvalidSpec(f"container id {spec.id!r} is not made of letters, digits, dots, dashes and underscores")
    linux = spec.oci.get("linux") or {}
    path = linux.get("cgroupsPath") or f"{state.DEFAULT_CGROUP}/{spec.id}"
    if not state.new_container(state_dir, spec.id, {"container": spec.id, "cgroup": path}):
        raise InvalidSpec(f"container {spec.id} has been started before")
    request = {
        "container": spec.id,
        "cgroup": path,
        "log": spec.log_path,
        "tty": spec.tty,
        "stdin": spec.stdin,
        "stdin_once": spec.stdin_once,
        "pid_target": spec.pid_target,
    }
    prepared = Prepared(request, json.dumps(spec.to_json()).encode(), state_dir)
    try:
        failpoint("start.before_cgroup")
        cgroup = Cgroup(path)
        cgroup.create()
        cgroup.apply(linux.get("resources") or {})
    except BaseException as error:
        prepared.undo(error)
        raise
    return prepared
