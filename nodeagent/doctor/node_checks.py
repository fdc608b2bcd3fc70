"""What the host has beside its kernel: libraries, network set-up, disk, neighbours, and our own daemons."""

from __future__ import annotations

import ctypes
import os
import shutil
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from nodeagent.doctor.check import Check, Verdict, judged

LIBRARIES = {
    "libseccomp.so.2": ("libseccomp2", "seccomp profiles", Verdict.BROKEN),
    "libcap.so.2": ("libcap2", "capabilities", Verdict.BROKEN),
    "libnftables.so.1": ("libnftables1", "the built-in pod network", Verdict.LACKS),
}
DISK_WANTED = 2 << 30
WATCHES_WANTED = 128
_SYSCTL = Path("/proc/sys")


@dataclass(frozen=True, slots=True)
class Settings:
    """Where this host's node is, or would be."""

    root: Path
    state: Path
    kubelet_root: Path
    conf_dir: Path = Path("/etc/cni/net.d")
    bin_dir: Path = Path("/opt/cni/bin")


def libraries(settings: Settings) -> Check:
    missing = [name for name in LIBRARIES if not _loads(name)]
    if not missing:
        return Check("libraries", Verdict.OK, ", ".join(LIBRARIES))
    worst = Verdict.BROKEN if Verdict.BROKEN in {LIBRARIES[name][2] for name in missing} else Verdict.LACKS
    packages = " ".join(LIBRARIES[name][0] for name in missing)
    purposes = ", ".join(f"{name} ({LIBRARIES[name][1]})" for name in missing)
    return Check("libraries", worst, f"lacks {purposes}", f"apt-get install {packages}")


def _loads(name: str) -> bool:
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


def network_modules(settings: Settings) -> Check:
    """Modules are loaded on demand; what matters is that this kernel has them."""
    missing = [name for name in ("bridge", "veth", "nf_tables") if not _has_module(name)]
    found = f"cannot see {', '.join(missing)}" if missing else "bridge, veth, nf_tables"
    return judged("network modules", not missing, found, f"load them: modprobe {' '.join(missing)}")


def _has_module(name: str) -> bool:
    if Path("/sys/module", name).exists() or _SYSCTL.joinpath("net", name).exists():
        return True
    folder = Path("/lib/modules", os.uname().release)
    for index in ("modules.builtin", "modules.dep"):
        try:
            if f"/{name}.ko" in folder.joinpath(index).read_text():
                return True
        except FileNotFoundError:
            continue
    # Without an index of modules, such as in a container, only loaded ones can be seen: ask the kernel's own list.
    symbols = {"bridge": "br_add_bridge", "veth": "veth_xmit", "nf_tables": "nf_tables_newtable"}
    return _kernel_has(symbols[name])


def _kernel_has(symbol: str) -> bool:
    try:
        with open("/proc/kallsyms", encoding="ascii", errors="replace") as symbols:
            return any(line.split()[2] == symbol for line in symbols)
    except OSError:
        return False


def cni(settings: Settings) -> Check:
    confs = sorted(path.name for path in settings.conf_dir.glob("*.conf*")) if settings.conf_dir.is_dir() else []
    binaries = sorted(path.name for path in settings.bin_dir.iterdir()) if settings.bin_dir.is_dir() else []
    if not confs:
        return Check("CNI", Verdict.OK, f"no configuration in {settings.conf_dir}: the built-in bridge network is used")
    return Check("CNI", Verdict.OK, f"{confs[0]} of {settings.conf_dir}; {len(binaries)} plugins in {settings.bin_dir}")


def forwarding(settings: Settings) -> Check:
    on = _SYSCTL.joinpath("net/ipv4/ip_forward").read_text().strip() == "1"
    found = "on" if on else "off; the built-in network switches it on with the first pod"
    return Check("IPv4 forwarding", Verdict.OK, found)


def watches(settings: Settings) -> Check:
    count = int(_SYSCTL.joinpath("fs/inotify/max_user_instances").read_text())
    remedy = f"sysctl fs.inotify.max_user_instances={8 * WATCHES_WANTED}"
    return judged("inotify", count >= WATCHES_WANTED, f"{count} instances for each user", remedy)


def disk(settings: Settings) -> Check:
    place = next(path for path in (settings.root, *settings.root.parents) if path.exists())
    free = shutil.disk_usage(place).free
    return judged(
        "disk", free >= DISK_WANTED, f"{free >> 20} MiB free at {place}", "free some space: images and logs live here"
    )


def busybox(settings: Settings) -> Check:
    good = Path("/bin/busybox").exists()
    found = "/bin/busybox" if good else "no /bin/busybox"
    return judged("demo image", good, found, "for `nodeagent up --demo`: apt-get install busybox-static")


def neighbours(settings: Settings) -> Check:
    """A kubelet has the same directories, and takes our pods for leftovers of its own."""
    names = {process.info["name"] for process in psutil.process_iter(["name"])}
    if "kubelet" in names and settings.kubelet_root == Path("/var/lib/kubelet"):
        remedy = "stop it, or give our agent another --kubelet-root"
        return Check("neighbours", Verdict.LACKS, f"a kubelet runs here and uses {settings.kubelet_root} too", remedy)
    others = sorted(names & {"containerd", "crio", "dockerd"})
    return Check("neighbours", Verdict.OK, f"{', '.join(others)} run beside" if others else "no other node software")


def daemons(settings: Settings) -> Check:
    down = [name for name in ("cri.sock", "agent.sock") if not _answers(settings.state / name)]
    found = f"nobody answers on {', '.join(str(settings.state / name) for name in down)}" if down else "both answer"
    return judged("our daemons", not down, found, "start them: nodeagent up")


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


NODE_CHECKS: tuple[Callable[[Settings], Check], ...] = (
    libraries,
    network_modules,
    cni,
    forwarding,
    watches,
    disk,
    busybox,
    neighbours,
    daemons,
)
