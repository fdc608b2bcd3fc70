"""The host itself: kernel, capabilities, cgroups, limits, settings, memory, disk, clock."""

from __future__ import annotations

import os
import re
import resource
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import psutil

from nodeagent.doctor.features import existing
from nodeagent.doctor.finding import OK, WARN, Finding, judge
from runtime.linux import caps
from runtime.linux.cgroups import CgroupError, detect

OLDEST_KERNEL: Final = (5, 14)
OPEN_FILES: Final = 65536
#: Where the kubelet begins to collect images (its imageGCHighThresholdPercent).
DISK_SHARE: Final = 0.85
DISK_FLOOR: Final = 1 << 30
#: 2025-01-01: a clock before that was never set.
EARLIEST: Final = 1_735_689_600
INOTIFY: Final = {"max_user_instances": 128, "max_user_watches": 8192}

CONSEQUENCES: Final = {
    "CAP_SYS_ADMIN": (True, "no namespace, mount or cgroup can be made"),
    "CAP_NET_ADMIN": (True, "pods cannot have a network"),
    "CAP_SETUID": (True, "containers cannot run as their user"),
    "CAP_SETGID": (True, "containers cannot run with their groups"),
    "CAP_CHOWN": (True, "files of images cannot have their owners"),
    "CAP_DAC_OVERRIDE": (True, "files of other owners cannot be served to containers"),
    "CAP_FOWNER": (True, "modes of images' files cannot be set"),
    "CAP_KILL": (True, "containers of other users cannot be stopped"),
    "CAP_SETPCAP": (True, "capabilities cannot be taken from containers"),
    "CAP_MKNOD": (False, "images with device nodes cannot be unpacked, nor containers get devices"),
    "CAP_SYS_CHROOT": (False, "containers that ask for it go without"),
    "CAP_SYS_PTRACE": (False, "usage of other users' processes is not seen in full"),
    "CAP_SYS_RESOURCE": (False, "rlimits above the daemon's own and oom_score_adj below its own cannot be set"),
}


def examine(root: Path) -> list[Finding]:
    return [
        _kernel(),
        *_capabilities(),
        *_cgroups(),
        _open_files(),
        *_sysctls(),
        _swap(),
        _pressure(),
        _disk(root),
        _clock(),
    ]


def _kernel() -> Finding:
    release = os.uname().release
    numbers = re.match(r"(\d+)\.(\d+)", release)
    version = (int(numbers[1]), int(numbers[2])) if numbers else (0, 0)
    return judge(
        "host", "kernel", version >= OLDEST_KERNEL, f"Linux {release} on {os.uname().machine}",
        "older than all kernels that this is tested on", "boot Linux 5.14 or later; 6.8 is best",
    )  # fmt: skip


def _capabilities() -> Iterator[Finding]:
    here = caps.effective_mask()
    missing = [name for name in caps.NAMES if not here >> caps.number(name) & 1]
    if not missing:
        yield Finding("host", "capabilities", OK, "all are there")
    for name in missing:
        if name in CONSEQUENCES:
            fatal, follows = CONSEQUENCES[name]
            remedy = "start as full root, not in a VM or container that keeps it back"
            yield judge("host", name, False, "missing", follows, remedy, fatal=fatal)
    if others := [name for name in missing if name not in CONSEQUENCES]:
        yield Finding(
            "host", "capabilities", WARN, f"missing: {', '.join(others)}",
            "containers that ask for them, privileged ones too, go without", "needed only where such containers run",
        )  # fmt: skip


def _cgroups() -> Iterator[Finding]:
    try:
        layout = detect()
    except (CgroupError, OSError) as error:
        follows, remedy = "no container can be confined", "mount cgroup2 on /sys/fs/cgroup"
        yield judge("host", "cgroups", False, str(error), follows, remedy, fatal=True)
        return
    controllers = {name: layout.version(name) for name in ("cpu", "memory", "pids", "cpuset", "io", "blkio", "hugetlb")}
    shown = ", ".join(f"{name} v{version}" for name, version in controllers.items() if version)
    base = layout.v2 or next(iter(layout.v1.values()))
    found = f"{layout.mode}: {shown or 'no controllers'}; below {base}"
    yield judge(
        "host", "cgroups", layout.mode == "unified", found,
        "limits go through cgroup v1, which has no pressure of its own and no graceful OOM groups"
        if layout.mode == "hybrid" else "no cgroup.kill, no freezer of v2",
        "boot with systemd.unified_cgroup_hierarchy=1, or mount cgroup2 alone",
    )  # fmt: skip


def _open_files() -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = hard == resource.RLIM_INFINITY
    return judge(
        "host", "open files", unlimited or hard >= OPEN_FILES, f"{soft}, at most {'unlimited' if unlimited else hard}",
        "a node with many pods may run out of descriptors", f"LimitNOFILE={OPEN_FILES} in the units, or ulimit -n",
    )  # fmt: skip


def _sysctls() -> Iterator[Finding]:
    forward = _sysctl("net/ipv4/ip_forward")
    yield judge(
        "host", "ip_forward", forward == "1", f"net.ipv4.ip_forward = {forward or 'missing'}",
        "pods cannot reach beyond the node", "the first pod on the default network sets it; or sysctl -w it",
    )  # fmt: skip
    for name, least in INOTIFY.items():
        value = _sysctl(f"fs/inotify/{name}")
        yield judge(
            "host", f"inotify {name}", value.isdigit() and int(value) >= least, value or "missing",
            "manifests, plugins and logs may not be watched", f"sysctl -w fs.inotify.{name}={least * 4}",
        )  # fmt: skip


def _sysctl(name: str) -> str:
    try:
        return Path("/proc/sys", name).read_text().strip()
    except OSError:
        return ""


def _swap() -> Finding:
    total = psutil.swap_memory().total
    return judge(
        "host", "swap", total == 0, f"{total >> 20} MiB" if total else "none",
        "pods may be swapped out instead of being limited", "swapoff -a, unless it is meant so",
    )  # fmt: skip


def _pressure() -> Finding:
    good = Path("/proc/pressure/memory").exists()
    return judge(
        "host", "pressure (PSI)", good, "available" if good else "missing",
        "statistics tell nothing of waiting for CPU, memory or disk", "boot with psi=1",
    )  # fmt: skip


def _disk(root: Path) -> Finding:
    where = existing(root)
    usage = shutil.disk_usage(where)
    good = usage.free >= DISK_FLOOR and usage.used <= usage.total * DISK_SHARE
    return judge(
        "host", "disk", good, f"{where}: {usage.free >> 20} MiB free of {usage.total >> 20} MiB",
        "images may not find place", "nodectl rmi unused images, or put --root on a larger disk",
    )  # fmt: skip


def _clock() -> Finding:
    now = time.time()
    return judge(
        "host", "clock", now > EARLIEST, time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now)),
        "certificates of registries do not verify", "set the clock; run an NTP client",
    )  # fmt: skip
