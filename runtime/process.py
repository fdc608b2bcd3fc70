"""What a container's process becomes between its namespaces and execve: user, limits, capabilities, filter, program.

It runs beside a root filesystem that may be hostile and does nothing but system calls: nothing is imported here, no
name of a user, locale or codec is looked up (CVE-2019-14271 was a library loaded after chroot). What to become was
settled elsewhere (`runtime.processplan`).
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import signal
import stat
from typing import Final

import prctl

from runtime.arrival import arrive
from runtime.errors import StartError
from runtime.linux import seccomp
from runtime.linux.caps import CapabilitySets, drop_bounding, set_process_capabilities
from runtime.linux.keyring import join_session_keyring
from runtime.linux.syscalls import close_range, execve, string_array
from runtime.processplan import ProcessPlan
from runtime.signals import reset_signals
from runtime.status import Status

STATUS_FD: Final = 3


def become(plan: ProcessPlan, program: bytes, status: Status, *, late: bool = False) -> None:
    """Turn into the planned process and execute it; only returns by raising. Root and stdio are in place already.

    `program` is the seccomp filter, b"" for none. `late`: the process's PID namespace was chosen, not entered.
    `status` is told when all is done but execve; it is close-on-exec, so success is its end of file.
    """
    argv = string_array([os.fsencode(argument) for argument in plan.args])
    envp = string_array([os.fsencode(entry) for entry in plan.env])
    _limit(plan)
    join_session_keyring(plan.name)
    drop_bounding(plan.dropped)
    os.umask(plan.umask)
    status.move_to(STATUS_FD)
    close_range(STATUS_FD + 1)  # before chdir: no fd of the host's is reachable as /proc/self/fd/N (CVE-2024-21626)
    arrived = _enter(plan.cwd, last_try=False)
    if program and not plan.no_new_privs:
        seccomp.install(program)  # needs CAP_SYS_ADMIN, which goes with the user
    _become_user(plan)
    if not arrived:
        _enter(plan.cwd, last_try=True)
    path = _find(plan)
    reset_signals()
    if plan.no_new_privs:
        prctl.set_no_new_privs(1)
    if late:
        arrive(status, terminal=plan.terminal)
    status.executing()
    if program and plan.no_new_privs:
        seccomp.install(program)
    try:
        execve(os.fsencode(path), argv, envp)
    except OSError as error:
        raise StartError(f"exec {path}: {_reason(error)}") from error


def _limit(plan: ProcessPlan) -> None:
    for name, number, soft, hard in plan.rlimits:
        try:
            resource.setrlimit(number, (soft, hard))
        except (OSError, ValueError) as error:
            error.add_note(f"setting {name} to {soft}:{hard}; a hard limit can only be raised with CAP_SYS_RESOURCE")
            raise


def _enter(cwd: str, *, last_try: bool) -> bool:
    """chdir, first as root and, when that may not look there (NFS, FUSE), once more as the user."""
    try:
        os.chdir(cwd)
        inside = os.getcwdb().startswith(b"/")  # "(unreachable)" for a directory outside the root; glibc: ENOENT
    except PermissionError:
        if last_try:
            raise StartError(f"working directory {cwd!r}: permission denied") from None
        return False
    except OSError as error:
        raise StartError(f"working directory {cwd!r}: {_reason(error)}") from error
    if not inside:
        raise StartError(f"working directory {cwd!r} is outside of the root filesystem")
    return True


def _become_user(plan: ProcessPlan) -> None:
    prctl.set_keepcaps(1)
    os.setgroups(plan.groups)
    os.setresgid(plan.gid, plan.gid, plan.gid)
    os.setresuid(plan.uid, plan.uid, plan.uid)
    prctl.set_keepcaps(0)
    set_process_capabilities(CapabilitySets(plan.bounding, plan.effective, plan.permitted, plan.ambient))
    prctl.set_pdeathsig(signal.SIGKILL)  # after the change of user, which clears it (prctl(2))


def _find(plan: ProcessPlan) -> str:
    """The program's path, looked up inside the root and as the user; raises StartError in runc's words."""
    name = plan.args[0]
    shown = f'exec: "{name}"'
    if "/" in name:
        try:
            if _is_executable(name):
                return name
        except OSError as error:
            raise StartError(f"{shown}: stat {name}: {_reason(error)}") from error
        raise StartError(f"{shown}: permission denied")
    for directory in plan.search:
        with contextlib.suppress(OSError):
            if _is_executable(f"{directory}/{name}"):
                return f"{directory}/{name}"
    raise StartError(f"{shown}: executable file not found in $PATH")


def _is_executable(path: str) -> bool:
    found = os.stat(path)
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    return os.access(path, os.X_OK)


def _reason(error: OSError) -> str:
    return os.strerror(error.errno or 0).lower()
