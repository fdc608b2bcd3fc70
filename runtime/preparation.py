"""What crid does for a container before its shim clones it: the record on disk, and the cgroup with its limits.

It stands on crid's side because it is much work that happens once: crid is warm and large anyway, while a shim keeps
every page that it touches for as long as the pod lives. All of it blocks, shortly; call it in a thread.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from runtime import recovery, rootfs, state
from runtime.errors import InvalidSpec, NotFound
from runtime.external.bundle import make_bundle
from runtime.linux.caps import CAP_SYS_PTRACE
from runtime.linux.cgroups import Cgroup, detect
from runtime.linux.failpoints import failpoint
from runtime.linux.fds import Fd
from runtime.linux.overlay import OverlayRootfs
from runtime.linux.scheduling import plan_scheduling
from runtime.linux.userns import Lines, Maps, host_id
from runtime.logs import open_log
from runtime.processplan import ProcessPlan, plan_process
from runtime.separation import plan_separation
from runtime.spec import ContainerSpec, ExecSpec

_PLAIN: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")


@dataclass(slots=True)
class Prepared:
    """A container that only has to be cloned: the request to the shim, and the plan for the container's init.

    That of an external runtime has a bundle in the place of the plan.
    """

    request: dict[str, Any]
    blob: bytes
    record: dict[str, Any]
    state_dir: str
    #: the log file, which a shim of ours gets opened: opening it safely takes more memory than keeping it
    log: Fd | None = None

    def fds(self) -> list[int]:
        """What goes with the request."""
        return [self.log.fileno()] if self.log else []

    def close(self) -> None:
        """The request was sent, or will not be."""
        if self.log:
            self.log.close()

    def undo(self, error: BaseException) -> None:
        """Take everything back after `error`; what cannot be taken back becomes a note on it."""
        try:
            recovery.remove_container(self.state_dir, self.request["container"], detect())
        except OSError as trouble:
            error.add_note(f"and what was prepared for it could not be removed: {trouble}")


def prepare(state_dir: str, spec: ContainerSpec, criu: str = "") -> Prepared:
    """Record the container, create its cgroup, apply its limits. When this raises, nothing is left.

    `criu` is the path of the program for a container that is to be restored instead of started.
    Raises InvalidSpec for an id that is no file name or has been used, CgroupError, OSError.
    """
    _check(spec)
    linux = spec.oci.get("linux") or {}
    path = linux.get("cgroupsPath") or f"{state.DEFAULT_CGROUP}/{spec.id}"
    ids = rootfs.id_maps(linux)
    process = plan_process(spec.oci["process"], spec.id, spec.seccomp_filter, terminal=spec.tty, ids=ids)
    process = process._replace(scheduling=plan_scheduling(spec.oci))
    tree = rootfs.tree_of(spec) | {"separation": plan_separation(linux)}
    request = _request(spec, path, process)
    record = _record(spec, path, ids)
    if not state.new_container(state_dir, spec.id, record):
        raise InvalidSpec(f"container {spec.id} has been started before")
    document = {"process": process, "tree": tree, "criu": criu}
    prepared = Prepared(request, json.dumps(document).encode(), record, state_dir)
    try:
        if spec.external:
            prepared.blob = json.dumps(make_bundle(state_dir, spec, path)).encode()
        if ids and isinstance(spec.rootfs, OverlayRootfs):
            _give_root_directory(spec.rootfs.upper, ids)
        if request["log"] and not (spec.external or criu):
            prepared.log = Fd(open_log(request["log"]))
        failpoint("start.before_cgroup")
        cgroup = Cgroup(path)
        cgroup.create()
        cgroup.apply(linux.get("resources") or {})
    except BaseException as error:
        prepared.close()
        prepared.undo(error)
        raise
    return prepared


def _check(spec: ContainerSpec) -> None:
    if not spec.id or not _PLAIN.issuperset(spec.id) or spec.id[0] == ".":
        raise InvalidSpec(f"container id {spec.id!r} is not made of letters, digits, dots, dashes and underscores")
    if not spec.external and any((spec.oci.get("hooks") or {}).values()):
        raise InvalidSpec(
            f"container {spec.id} has OCI hooks, which the built-in runtime does not run; "
            "give its pod a runtime handler with an external runtime"
        )


def _request(spec: ContainerSpec, cgroup: str, process: ProcessPlan) -> dict[str, Any]:
    """What the shim is asked; it reads nothing else about the container."""
    return {
        "container": spec.id,
        "cgroup": cgroup,
        "log": _resolved(spec.log_path),
        "tty": spec.tty,
        "stdin": spec.stdin,
        "stdin_once": spec.stdin_once,
        "pid_target": spec.pid_target,
        "pid_own": spec.pid_own,
        "traces": bool((process.bounding | process.permitted) >> CAP_SYS_PTRACE & 1),
    }


def _record(spec: ContainerSpec, cgroup: str, ids: Maps | None) -> dict[str, Any]:
    """What is kept on disk: enough to run an exec, and to take the container away when its shim is lost."""
    record = {"container": spec.id, "cgroup": cgroup, "process": spec.oci["process"], "seccomp": spec.seccomp_filter}
    if ids:
        record["ids"] = ids
    if spec.external:
        record["external"] = True
    return record


def _give_root_directory(upper: str, ids: Maps) -> None:
    """The writable layer itself shows as the container's /, and is not id-mapped; its owner is of the image's ids."""
    found = os.stat(upper, follow_symlinks=False)
    os.chown(upper, _outside(ids["uid"], found.st_uid), _outside(ids["gid"], found.st_gid), follow_symlinks=False)


def _outside(lines: Lines, owner: int) -> int:
    """An id of the image as one of the node; an id of the node that a start which crid did not survive has given."""
    try:
        return host_id(lines, owner)
    except ValueError:
        if any(outside <= owner < outside + length for _, outside, length in lines):
            return owner
        raise


def _resolved(log_path: str) -> str:
    """The log's path with its directory resolved, once: the shim follows no link when it opens it, now or later."""
    directory, name = os.path.split(log_path)
    return f"{os.path.realpath(directory)}/{name}" if log_path else ""


def prepare_exec(record: Mapping[str, Any], spec: ExecSpec) -> bytes:
    """The plan for one more process: that of the container's `record`, with what the spec says instead.

    Raises NotFound, StartError, InvalidSpec, OSError.
    """
    if "process" not in record:
        raise NotFound(f"container {record['container']} is not running")
    given = {
        "args": spec.args,
        "env": spec.env,
        "cwd": spec.cwd,
        "user": spec.user,
        "capabilities": spec.capabilities,
        "noNewPrivileges": spec.no_new_privileges,
        "oomScoreAdj": spec.oom_score_adj,
    }
    document = record["process"] | {key: value for key, value in given.items() if value is not None}
    if record.get("external"):
        return json.dumps({**document, "terminal": spec.tty}).encode()
    seccomp = record["seccomp"] if spec.seccomp_filter is None else spec.seccomp_filter
    planned = plan_process(document, record["container"], seccomp, terminal=spec.tty, ids=record.get("ids"))
    return json.dumps(planned).encode()
