"""A container as most are: what cri.server asks for when its client asks for nothing special.

The zygote rehearses with it what is done for every container (`runtime.rehearsal`, `runtime.scouts`).
"""

from __future__ import annotations

from typing import Any, Final

from runtime import rootfs
from runtime.linux.overlay import OverlayRootfs
from runtime.processplan import plan_process
from runtime.spec import ContainerSpec

_KERNEL: Final = ["nosuid", "noexec", "nodev"]
_CAPABILITIES: Final = ["CAP_CHOWN", "CAP_KILL", "CAP_SETGID", "CAP_SETUID", "CAP_NET_BIND_SERVICE"]
_PROCESS: Final[dict[str, Any]] = {
    "args": ["true"],
    "env": ["PATH=/usr/bin:/bin", "HOSTNAME=specimen", "HOME=/root"],
    "cwd": "/",
    "user": {"uid": 0, "gid": 0, "additionalGids": [0]},
    "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), _CAPABILITIES),
    "oomScoreAdj": 1000,
}
_LINUX: Final = {
    "maskedPaths": ["/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"],
    "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
}


def process_of(path: str) -> tuple[Any, ...]:
    """The plan of its process (`runtime.processplan`), with the directories in `path` to look for the program in."""
    return plan_process({**_PROCESS, "env": [*_PROCESS["env"], f"PATH={path}"]}, "specimen", "", terminal=False)


def tree_in(directory: str) -> dict[str, Any]:
    """Its filesystem tree (runtime.rootfs.tree_of) of lower, upper, work, etc and shm in a directory."""
    layers = OverlayRootfs((f"{directory}/lower",), f"{directory}/upper", f"{directory}/work")
    config = {"process": _PROCESS, "mounts": _mounts(directory), "linux": _LINUX}
    return rootfs.tree_of(ContainerSpec("specimen", "specimen", config, layers)) | {"separation": {}}


def _mounts(directory: str) -> list[dict[str, Any]]:
    return [
        _mount("/proc", "proc", "proc", _KERNEL),
        _mount("/dev", "tmpfs", "tmpfs", ["nosuid", "strictatime", "mode=755"]),
        _mount("/sys", "sysfs", "sysfs", [*_KERNEL, "ro"]),
        *(
            _mount(f"/etc/{name}", "bind", f"{directory}/etc/{name}", ["rbind", "rprivate", "rw"])
            for name in ("hosts", "hostname", "resolv.conf")
        ),
        _mount("/dev/pts", "devpts", "devpts", ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]),
        _mount("/dev/mqueue", "mqueue", "mqueue", _KERNEL),
        _mount("/dev/shm", "bind", f"{directory}/shm", ["rbind", *_KERNEL, "rw"]),
        _mount("/sys/fs/cgroup", "cgroup", "cgroup", [*_KERNEL, "relatime", "ro"]),
    ]


def _mount(destination: str, kind: str, source: str, options: list[str]) -> dict[str, Any]:
    return {"destination": destination, "type": kind, "source": source, "options": options}
