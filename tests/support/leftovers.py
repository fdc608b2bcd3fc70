"""What the tests could leave on a machine, listed from the kernel: taken before and after a run, the two must agree."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

# Every process that a test run starts inherits this variable, unless it is a container with an environment of its own.
RUN_TOKEN = "NODEAGENT_TEST_RUN"
STATE_GLOBS = (
    "/run/nodeagent*",
    "/run/netns/*",
    "/var/lib/nodeagent*",
    "/var/lib/cni/*",
    "/var/lib/kubelet*",
    "/var/log/pods/*",
    "/etc/cni/net.d/*",
    "/etc/nodeagent*",
    "/tmp/na-*",
    "/dev/shm/*",
)

OUR_CGROUPS = ("kubepods", "nat", "nab", "nad", "na-", "nodeagent", "bench")


def _mounts() -> Iterator[str]:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        yield line.split(" ")[4]


def _links() -> Iterator[str]:
    yield from os.listdir("/sys/class/net")


def _nft_tables() -> Iterator[str]:
    done = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, timeout=20, check=False)
    yield from done.stdout.splitlines()


def _cgroups() -> Iterator[str]:
    """Those with a name of ours on their path: service managers make and remove cgroups at any time too."""
    for directory, _, _ in os.walk("/sys/fs/cgroup"):
        if any(name.startswith(OUR_CGROUPS) for name in directory.split("/")):
            yield directory


def _loop_devices() -> Iterator[str]:
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        yield backing.read_text().strip()


def _state_files() -> Iterator[str]:
    for pattern in STATE_GLOBS:
        yield from (str(path) for path in Path("/").glob(pattern[1:]))


def _processes() -> Iterator[str]:
    """Processes of this run by their environment, and containers by their mount namespace."""
    token = os.environ.get(RUN_TOKEN, "")
    ours = os.readlink("/proc/self/ns/mnt")
    for pid in filter(str.isdigit, os.listdir("/proc")):
        if int(pid) == os.getpid():
            continue
        try:
            environ = Path(f"/proc/{pid}/environ").read_bytes()
            namespace = os.readlink(f"/proc/{pid}/ns/mnt")
            command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # it ended while we looked at it
            continue
        if (token and f"{RUN_TOKEN}={token}".encode() in environ) or namespace != ours:
            yield f"{pid} {command[:120]}"


KINDS: dict[str, Callable[[], Iterator[str]]] = {
    "process": _processes,
    "mount": _mounts,
    "link": _links,
    "nft table": _nft_tables,
    "cgroup": _cgroups,
    "loop device": _loop_devices,
    "file": _state_files,
}


def snapshot() -> dict[str, set[str]]:
    """What there is now, by kind."""
    return {kind: set(list_all()) for kind, list_all in KINDS.items()}


def left_behind(before: dict[str, set[str]], *, patience_s: float = 8.0) -> list[str]:
    """What there is now and was not before, as `kind: name`; waits while orphans are still being reaped."""
    deadline = time.monotonic() + patience_s
    while True:
        now = snapshot()
        found = [f"{kind}: {name}" for kind in KINDS for name in sorted(now[kind] - before[kind])]
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.2)
