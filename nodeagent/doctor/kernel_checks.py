"""What the kernel gives: version, calls, namespaces, file systems, cgroups, seccomp, capabilities."""

from __future__ import annotations

import errno
import os
import platform
import resource
from collections.abc import Callable
from pathlib import Path

from nodeagent.doctor.check import Check, Verdict, judged
from runtime.linux.caps import effective_mask, number
from runtime.linux.cgroups import CgroupError, detect
from runtime.linux.mountapi import fsopen
from runtime.linux.syscalls import AT_FDCWD, openat2

LEAST_KERNEL = (5, 14)
"""cgroup.kill; clone3, openat2 and the mount API are older."""
IDMAPPED_OVERLAY = (5, 19)

_NAMESPACES = ("mnt", "pid", "net", "ipc", "uts", "cgroup", "user")
_CAPABILITIES = {
    "CAP_SYS_ADMIN": Verdict.BROKEN,
    "CAP_NET_ADMIN": Verdict.BROKEN,
    "CAP_SETUID": Verdict.BROKEN,
    "CAP_SETGID": Verdict.BROKEN,
    "CAP_SYS_CHROOT": Verdict.BROKEN,
    "CAP_CHOWN": Verdict.BROKEN,
    "CAP_MKNOD": Verdict.LACKS,
    "CAP_SYS_RESOURCE": Verdict.LACKS,
    "CAP_SYS_PTRACE": Verdict.LACKS,
}
_WITHOUT = {
    "CAP_SYS_RESOURCE": "guaranteed pods cannot be kept from the OOM killer, nor rlimits raised",
    "CAP_MKNOD": "devices cannot be made for privileged containers",
    "CAP_SYS_PTRACE": "processes of other users cannot be looked at",
}
_CONTROLLERS = ("cpu", "memory", "pids", "cpuset", "io")
FILES_WANTED = 65536


def kernel_version() -> Check:
    release = platform.release()
    remedy = f"use a kernel of {'.'.join(map(str, LEAST_KERNEL))} or later"
    return judged("kernel", _version(release) >= LEAST_KERNEL, f"Linux {release}", remedy, Verdict.BROKEN)


def _version(release: str) -> tuple[int, ...]:
    digits = "".join(character if character.isdigit() else " " for character in release).split()
    return tuple(int(part) for part in digits[:2])


def system_calls() -> Check:
    """openat2(2) stands for its generation: a seccomp filter around us may forbid what the kernel has."""
    try:
        os.close(openat2(AT_FDCWD, "/", os.O_PATH | os.O_DIRECTORY))
    except OSError as error:
        remedy = "run outside of the container or sandbox whose seccomp filter forbids it, or use a newer kernel"
        return Check("system calls", Verdict.BROKEN, f"openat2: {error.strerror}", remedy)
    return Check("system calls", Verdict.OK, "openat2, clone3, pidfd and the mount API")


def root_and_capabilities() -> Check:
    if os.geteuid() != 0:
        return Check("root", Verdict.BROKEN, f"uid {os.geteuid()}", "run as root")
    have = effective_mask()
    missing = [name for name in _CAPABILITIES if not have >> number(name) & 1]
    if not missing:
        return Check("capabilities", Verdict.OK, "all that a node needs")
    worst = Verdict.BROKEN if Verdict.BROKEN in {_CAPABILITIES[name] for name in missing} else Verdict.LACKS
    effects = "; ".join(f"without {name} {_WITHOUT.get(name, 'no container can be made')}" for name in missing)
    return Check("capabilities", worst, f"lacks {', '.join(missing)}", f"start with these capabilities: {effects}")


def namespaces() -> Check:
    missing = [name for name in _NAMESPACES if not Path(f"/proc/self/ns/{name}").exists()]
    remedy = "use a kernel with CONFIG_NAMESPACES and the missing kinds"
    found = f"lacks {', '.join(missing)}" if missing else ", ".join(_NAMESPACES)
    return judged("namespaces", not missing, found, remedy, Verdict.BROKEN)


def overlay() -> Check:
    """Opening a context loads the module and mounts nothing."""
    try:
        os.close(fsopen("overlay"))
    except OSError as error:
        remedy = "load it: modprobe overlay" if error.errno == errno.ENODEV else "see: dmesg"
        return Check("overlayfs", Verdict.BROKEN, error.strerror or str(error), remedy)
    return Check("overlayfs", Verdict.OK, "available")


def idmapped_mounts() -> Check:
    good = _version(platform.release()) >= IDMAPPED_OVERLAY
    found = "available" if good else "not for overlayfs before Linux 5.19"
    return judged("idmapped mounts", good, found, "use a newer kernel for pods with user namespaces")


def cgroups() -> Check:
    try:
        layout = detect()
    except (CgroupError, OSError) as error:
        return Check("cgroups", Verdict.BROKEN, str(error), "mount cgroup2 at /sys/fs/cgroup")
    missing = [
        name for name in _CONTROLLERS if not layout.version(name) and not (name == "io" and "blkio" in layout.v1)
    ]
    found = f"{layout.mode}; without limits on {', '.join(missing)}" if missing else f"{layout.mode}, all controllers"
    if layout.mode == "unified":
        remedy = "enable them in cgroup.subtree_control of the parents"
        return judged("cgroups", not missing, found, remedy, Verdict.BROKEN if "memory" in missing else Verdict.LACKS)
    remedy = "boot with systemd.unified_cgroup_hierarchy=1 (or cgroup_no_v1=all) for cgroup v2 alone"
    return Check("cgroups", Verdict.BROKEN if layout.mode == "legacy" else Verdict.LACKS, found, remedy)


def seccomp() -> Check:
    actions = Path("/proc/sys/kernel/seccomp/actions_avail")
    good = actions.exists() and "errno" in actions.read_text().split()
    remedy = "use a kernel with CONFIG_SECCOMP_FILTER: containers run unconfined by it otherwise"
    return judged("seccomp", good, "filters available" if good else "no filters", remedy)


def pressure() -> Check:
    good = Path("/proc/pressure/memory").exists()
    remedy = "boot with psi=1 for pressure numbers in the statistics"
    return judged("pressure (PSI)", good, "available" if good else "not available", remedy)


def open_files() -> Check:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    good = hard == resource.RLIM_INFINITY or hard >= FILES_WANTED
    found = f"soft {soft}, hard {hard}"
    return judged("open files", good, found, f"raise it: ulimit -Hn {FILES_WANTED}, or LimitNOFILE= in the unit")


KERNEL_CHECKS: tuple[Callable[[], Check], ...] = (
    kernel_version,
    system_calls,
    root_and_capabilities,
    namespaces,
    overlay,
    idmapped_mounts,
    cgroups,
    seccomp,
    pressure,
    open_files,
)
