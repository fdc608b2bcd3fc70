"""What the probes found, as findings: for each feature what its absence means and what helps."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, NamedTuple

from nodeagent.doctor.finding import FAIL, OK, WARN, Finding
from runtime.linux.commands import CommandFailed, run_command

SECONDS = 60.0
ANSWER_LIMIT = 1 << 20


class Absence(NamedTuple):
    """`fatal`: no pod runs without the feature."""

    fatal: bool
    follows: str
    remedy: str


_KERNEL = "boot a newer kernel (6.8 or later is best)"
_ROOT = "run as root, outside of a container that forbids it (CAP_SYS_ADMIN, seccomp profile)"
_MODULE = "modprobe {}; or boot a kernel that has it (CONFIG_{})"

ABSENCES: Final[dict[str, Absence]] = {
    "mount namespace": Absence(True, "containers cannot have a file system of their own", _ROOT),
    "uts namespace": Absence(True, "pods cannot have a host name", _ROOT),
    "ipc namespace": Absence(True, "pods cannot have shared memory of their own", _ROOT),
    "network namespace": Absence(True, "pods cannot have an address", _ROOT),
    "pid namespace": Absence(True, "containers would see the host's processes", _ROOT),
    "cgroup namespace": Absence(True, "containers would see the host's cgroups", _ROOT),
    "user namespace": Absence(
        False, "pods with hostUsers: false cannot run", "sysctl user.max_user_namespaces must not be 0"
    ),
    "time namespace": Absence(False, "nothing that pods need today", _KERNEL),
    "clone3 and pidfd": Absence(True, "containers cannot be started without races", f"{_KERNEL}; {_ROOT}"),
    "openat2": Absence(True, "paths in images cannot be resolved safely", "boot Linux 5.6 or later"),
    "mount API": Absence(True, "root file systems cannot be put together", "boot Linux 5.12 or later"),
    "overlay": Absence(
        True,
        "images cannot become root file systems",
        "modprobe overlay; and put --root on ext4, xfs or btrfs, not on another overlay",
    ),
    "idmapped mounts": Absence(
        False, "pods with user namespaces would have to own copies of their volumes", "boot Linux 5.19 or later"
    ),
    "seccomp": Absence(True, "containers would have every system call", "boot a kernel with CONFIG_SECCOMP_FILTER"),
    "CLONE_INTO_CGROUP": Absence(
        True, "containers cannot be confined from their first instruction", "mount cgroup v2; boot Linux 5.14 or later"
    ),
    "cgroup limits": Absence(
        True,
        "pods with resource limits are refused",
        "delegate the controllers cpu, memory and pids (systemd: Delegate=yes)",
    ),
    "device filter": Absence(
        True, "containers could open every device", "needs CAP_BPF or CAP_SYS_ADMIN and CONFIG_CGROUP_BPF"
    ),
    "bridge": Absence(
        False, "the default network does not work", f"{_MODULE.format('bridge', 'BRIDGE')}; or configure other CNI"
    ),
    "veth": Absence(
        False, "the default network does not work", f"{_MODULE.format('veth', 'VETH')}; or configure other CNI"
    ),
    "nftables": Absence(
        False,
        "no masquerading and no host ports on the default network",
        f"install libnftables1; {_MODULE.format('nf_tables nft_nat nft_masq', 'NF_TABLES')}",
    ),
}


def try_all(root: Path) -> list[Finding]:
    """Run the probes in their process. Blocks for as long as they take. `root` may not exist yet."""
    try:
        return list(_findings(_answers(root)))
    except (OSError, CommandFailed, ValueError) as error:
        words = f"the kernel's features could not be tried: {error}"
        return [Finding("kernel", "probes", FAIL, words, "what this host can do is not known", "run as root")]


def _answers(root: Path) -> dict[str, Any]:
    if os.geteuid() != 0:
        raise PermissionError("namespaces, mounts and cgroups are root's")
    directory = tempfile.mkdtemp(prefix=".nodectl-doctor-", dir=existing(root))
    try:
        done = run_command(
            [sys.executable, "-m", "nodeagent.doctor.probe", directory], timeout=SECONDS, limit=ANSWER_LIMIT
        )
        if done.returncode:
            raise ValueError(done.stderr.decode("utf-8", "replace")[-500:].strip())
        answers: dict[str, Any] = json.loads(done.stdout)
        return answers
    finally:
        shutil.rmtree(directory)


def existing(path: Path) -> Path:
    """The path, or the nearest directory above it that exists: both will be on one file system."""
    return next(each for each in (path, *path.parents) if each.is_dir())


def _findings(answers: dict[str, Any]) -> Iterable[Finding]:
    for name, absence in ABSENCES.items():
        answer = answers[name]
        if answer["works"]:
            yield Finding("kernel", name, OK, answer["detail"])
        else:
            verdict = FAIL if absence.fatal else WARN
            yield Finding("kernel", name, verdict, answer["detail"], absence.follows, absence.remedy)
