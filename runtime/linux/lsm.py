"""AppArmor and SELinux: whether the kernel runs one, and what it shall make of the next program of this process.

Both are told through /proc/<pid>/attr (proc_pid_attr(5)). A write that ends in another file than that one leaves a
container unconfined without an error (CVE-2019-16884, CVE-2023-28642, CVE-2025-52881), so it goes through a descriptor
of the node's procfs, taken before the container's file system is there, and every descriptor's filesystem is checked.
"""

from __future__ import annotations

import os
from typing import Final

from runtime.linux.files import read_limited
from runtime.linux.paths import open_procfs, write_proc
from runtime.linux.syscalls import fstatfs_type

SELINUX_MAGIC: Final = 0xF97CFF8C
LABEL: Final = "security.selinux"
APPARMOR_SWITCH: Final = "/sys/module/apparmor/parameters/enabled"
APPARMOR: Final = "/sys/kernel/security/apparmor"
SELINUX: Final = "/sys/fs/selinux"


def apparmor_enabled() -> bool:
    """Whether AppArmor is in this kernel and on, with its files where profiles are listed."""
    try:
        return read_limited(APPARMOR_SWITCH, 16).strip() == b"Y" and os.path.isdir(APPARMOR)
    except OSError:  # ENOENT: a kernel without it
        return False


def selinux_enabled() -> bool:
    """Whether SELinux is in this kernel and on; permissive counts, because labels matter there too."""
    try:
        fd = os.open(SELINUX, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return fstatfs_type(fd) & 0xFFFFFFFF == SELINUX_MAGIC
    finally:
        os.close(fd)


def set_label(path: str, label: str, *, follow: bool = True) -> None:
    """Give one file to an SELinux label, or the link itself. Raises OSError, EOPNOTSUPP where files have none."""
    os.setxattr(path, LABEL, label.encode() + b"\0", follow_symlinks=follow)


def label_next_program(apparmor: str, selinux: str, proc_path: str = "/proc") -> None:
    """Have the next execve(2) of this process enter an AppArmor profile, an SELinux context; "" for neither.

    Raises OSError: what is at `proc_path` is no procfs, or the kernel knows no such profile or context.
    """
    if not apparmor and not selinux:
        return
    proc = open_procfs(proc_path)
    try:
        own = os.readlink("thread-self", dir_fd=proc)
        if apparmor:
            _write(proc, f"{own}/attr/apparmor/exec", f"{own}/attr/exec", f"exec {apparmor}")
        if selinux:
            _write(proc, f"{own}/attr/selinux/exec", f"{own}/attr/exec", selinux)
    finally:
        os.close(proc)


def _write(proc: int, attribute: str, older: str, value: str) -> None:
    """The attribute of the one module; kernels before 5.8 have only one for whichever module is the major one."""
    try:
        try:
            write_proc(proc, attribute, value)
        except FileNotFoundError:
            write_proc(proc, older, value)
    except OSError as error:
        error.add_note(f"confining the container's program by {value!r}")
        raise
