"""What a container's process becomes between its namespaces and execve: user, limits, capabilities, filter, program.

`prepare` turns the OCI `process` document into bytes, ints and arrays while the host's root is still the root; `become`
runs beside a root filesystem that may be hostile, and does nothing but system calls with them: nothing is imported
there, no name of a user, locale or codec is looked up (CVE-2019-14271 was a library loaded after chroot).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import resource
import signal
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import prctl

from runtime.errors import InvalidSpec, StartError
from runtime.linux import seccomp
from runtime.linux.caps import CapabilitySets, drop_bounding, set_process_capabilities
from runtime.linux.keyring import join_session_keyring
from runtime.linux.syscalls import close_range, execve, string_array
from runtime.signals import reset_signals
from runtime.status import Status

DEFAULT_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ID_MAX: Final = 2**32 - 2  # 2**32 - 1 means "unchanged" to setresuid(2)
STATUS_FD: Final = 3


@dataclass(slots=True)
class ProcessPlan:
    """A process, ready to become: everything that could be looked up has been."""

    name: str
    args: list[bytes]
    argv: ctypes.Array[ctypes.c_char_p]
    envp: ctypes.Array[ctypes.c_char_p]
    search: list[bytes]
    cwd: bytes
    uid: int
    gid: int
    groups: list[int]
    umask: int
    capabilities: CapabilitySets
    no_new_privs: bool
    seccomp: bytes
    rlimits: list[tuple[str, int, int, int]]
    terminal: bool


def prepare(doc: Mapping[str, Any], name: str, seccomp_filter: str, bounding: int, *, terminal: bool) -> ProcessPlan:
    """From `process` of an OCI config; `name` is the session keyring's. Raises InvalidSpec, OSError for the filter."""
    args = [_bytes(argument, "argument") for argument in doc.get("args") or ()]
    if not args:
        raise StartError("no command: neither the request nor the image has args")
    env = [_bytes(entry, "environment entry") for entry in doc.get("env") or ()]
    user = doc.get("user") or {}
    try:
        capabilities = CapabilitySets.from_oci(doc.get("capabilities") or {}, bounding)
        program = seccomp.load(seccomp_filter) if seccomp_filter else b""
    except ValueError as error:
        raise InvalidSpec(str(error)) from error
    return ProcessPlan(
        name=name,
        args=args,
        argv=string_array(args),
        envp=string_array(env),
        search=_search_path(env),
        cwd=_bytes(doc.get("cwd") or "/", "cwd"),
        uid=_id(user.get("uid", 0)),
        gid=_id(user.get("gid", 0)),
        groups=[_id(group) for group in user.get("additionalGids") or ()],
        umask=user["umask"] if user.get("umask") is not None else 0o022,
        capabilities=capabilities,
        no_new_privs=bool(doc.get("noNewPrivileges")),
        seccomp=program,
        rlimits=[_rlimit(entry) for entry in doc.get("rlimits") or ()],
        terminal=terminal,
    )


def _bytes(text: str, what: str) -> bytes:
    encoded = os.fsencode(text)
    if b"\0" in encoded:
        raise InvalidSpec(f"{what} {text!r} contains a NUL byte")
    return encoded


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


def _search_path(env: list[bytes]) -> list[bytes]:
    path = next((entry[5:] for entry in reversed(env) if entry.startswith(b"PATH=")), DEFAULT_PATH.encode())
    return [directory or b"." for directory in path.split(b":")]


def become(plan: ProcessPlan, status: Status) -> None:
    """Turn into the planned process and execute it; only returns by raising. Root and stdio are in place already.

    `status` is told when all is done but execve; it is close-on-exec, so success is its end of file.
    """
    _limit(plan)
    join_session_keyring(plan.name)
    drop_bounding(plan.capabilities.bounding)
    os.umask(plan.umask)
    status.move_to(STATUS_FD)
    close_range(STATUS_FD + 1)  # before chdir: no fd of the host's is reachable as /proc/self/fd/N (CVE-2024-21626)
    arrived = _enter(plan.cwd, last_try=False)
    if plan.seccomp and not plan.no_new_privs:
        seccomp.install(plan.seccomp)  # needs CAP_SYS_ADMIN, which goes with the user
    _become_user(plan)
    if not arrived:
        _enter(plan.cwd, last_try=True)
    path = _find(plan)
    reset_signals()
    if plan.no_new_privs:
        prctl.set_no_new_privs(1)
    status.executing()
    if plan.seccomp and plan.no_new_privs:
        seccomp.install(plan.seccomp)
    try:
        execve(path, plan.argv, plan.envp)
    except OSError as error:
        raise StartError(f"exec {os.fsdecode(path)}: {_reason(error)}") from error


def _limit(plan: ProcessPlan) -> None:
    for name, number, soft, hard in plan.rlimits:
        try:
            resource.setrlimit(number, (soft, hard))
        except (OSError, ValueError) as error:
            error.add_note(f"setting {name} to {soft}:{hard}; a hard limit can only be raised with CAP_SYS_RESOURCE")
            raise


def _enter(cwd: bytes, *, last_try: bool) -> bool:
    """chdir, first as root and, when that may not look there (NFS, FUSE), once more as the user."""
    try:
        os.chdir(cwd)
        inside = os.getcwdb().startswith(b"/")  # "(unreachable)" for a directory outside the root; glibc: ENOENT
    except PermissionError:
        if last_try:
            raise StartError(f"working directory {os.fsdecode(cwd)!r}: permission denied") from None
        return False
    except OSError as error:
        raise StartError(f"working directory {os.fsdecode(cwd)!r}: {_reason(error)}") from error
    if not inside:
        raise StartError(f"working directory {os.fsdecode(cwd)!r} is outside of the root filesystem")
    return True


def _become_user(plan: ProcessPlan) -> None:
    prctl.set_keepcaps(1)
    os.setgroups(plan.groups)
    os.setresgid(plan.gid, plan.gid, plan.gid)
    os.setresuid(plan.uid, plan.uid, plan.uid)
    prctl.set_keepcaps(0)
    set_process_capabilities(plan.capabilities)
    prctl.set_pdeathsig(signal.SIGKILL)  # after the change of user, which clears it (prctl(2))


def _find(plan: ProcessPlan) -> bytes:
    """The program's path, looked up inside the root and as the user; raises StartError in runc's words."""
    name = plan.args[0]
    shown = f'exec: "{os.fsdecode(name)}"'
    if b"/" in name:
        try:
            if _is_executable(name):
                return name
        except OSError as error:
            raise StartError(f"{shown}: stat {os.fsdecode(name)}: {_reason(error)}") from error
        raise StartError(f"{shown}: permission denied")
    for directory in plan.search:
        with contextlib.suppress(OSError):
            if directory.startswith(b"/") and _is_executable(directory + b"/" + name):
                return directory + b"/" + name
    raise StartError(f"{shown}: executable file not found in $PATH")


def _is_executable(path: bytes) -> bool:
    found = os.stat(path)
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    return os.access(path, os.X_OK)


def _reason(error: OSError) -> str:
    return os.strerror(error.errno or 0).lower()
