"""A runtime that the bench starts itself, in a temporary directory, and takes away again with all that it made.

What two of them need beside each other is here: a network that nobody has, a cgroup of their own, and the cleaning up,
also after a run that was interrupted.
"""

from __future__ import annotations

import ipaddress
import json
import os
import secrets
import shutil
import subprocess
import tempfile
import time
from abc import abstractmethod
from pathlib import Path

from tests.bench import machine
from tests.bench.runtimes import Runtime

STOP_TIMEOUT = 20.0  # seconds for a daemon to end by SIGTERM


class Started(Runtime):
    """`name` in front, numbers of this run behind: so are its bridge and its cgroups called."""

    def __init__(self, registry: str, bridge: str) -> None:
        super().__init__(registry)
        # A short path: a unix socket's may have 107 bytes, and the pods' sockets lie below.
        self.home = Path(tempfile.mkdtemp(prefix="na-b", dir="/tmp"))
        self.bridge = f"{bridge}{self.mark[:8]}"
        self._daemon: Daemon | None = None
        hierarchy = machine.unified_hierarchy()
        self._cgroups = [] if hierarchy is None else [hierarchy / f"benchd{self.mark}", hierarchy / f"bench{self.mark}"]

    @abstractmethod
    def configure(self) -> None:
        """Writes the configuration, before the first start."""

    @abstractmethod
    def command(self) -> list[str]:
        """The daemon's command line."""

    def environment(self) -> dict[str, str]:
        return dict(os.environ)

    def start(self) -> None:
        if self._daemon is None:
            self.configure()
        cgroup = self._cgroups[0] if self._cgroups else None
        self._daemon = Daemon(self.command(), self.home / "daemon.log", cgroup, self.environment())

    def restart(self) -> float:
        assert self._daemon is not None
        self._daemon.stop()
        begun = time.monotonic()
        self.start()
        return begun

    def cpu_seconds(self) -> float | None:
        return sum(map(machine.cgroup_cpu_seconds, self._cgroups)) if self._cgroups else None

    def ended(self) -> bool:
        return self._daemon is not None and self._daemon.ended()

    def last_words(self) -> str:
        return self._daemon.last_words() if self._daemon else ""

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        if self._daemon is not None:
            self._daemon.stop()
        unmount_below(self.home)
        remove_link(self.bridge)
        for cgroup in (self.cgroup_parent, f"/benchd{self.mark}"):
            remove_cgroups(cgroup)
        shutil.rmtree(self.home, ignore_errors=True)


class Daemon:
    """A child process in a cgroup of its own, with a log file; killed when it does not end by itself."""

    def __init__(
        self, command: list[str], log: Path, cgroup: Path | None, environment: dict[str, str] | None = None
    ) -> None:
        self.log = log
        if cgroup is not None:
            cgroup.mkdir(exist_ok=True)
            command = ["sh", "-c", 'echo $$ > "$0" && exec "$@"', f"{cgroup}/cgroup.procs", *command]
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment, start_new_session=True
            )

    def ended(self) -> bool:
        return self._process.poll() is not None

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(STOP_TIMEOUT)

    def last_words(self) -> str:
        return "; its last words:\n" + "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])


def free_subnet() -> ipaddress.IPv4Network:
    """A /16 of the private range that no interface of this machine is in."""
    shown = subprocess.run(["ip", "-j", "-4", "address"], capture_output=True, check=True, timeout=20).stdout
    used = [
        ipaddress.ip_network(f"{address['local']}/{address['prefixlen']}", strict=False)
        for link in json.loads(shown)
        for address in link.get("addr_info", [])
    ]
    while True:
        subnet = ipaddress.IPv4Network(f"10.{128 + secrets.randbelow(127)}.0.0/16")
        if not any(subnet.overlaps(other) for other in used):
            return subnet


def remove_link(name: str) -> None:
    """The bridge that a network leaves behind; none is none."""
    subprocess.run(["ip", "link", "delete", name], capture_output=True, check=False, timeout=20)


def unmount_below(folder: Path) -> None:
    """Mounts that an interrupted run leaves, the last first."""
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for mount in reversed([mount for mount in mounts if mount.startswith(f"{folder}/")]):
        subprocess.run(["umount", "-l", mount], check=False, timeout=20)


def own_cgroup() -> str:
    """Where this process may make cgroups: on v2 the root, on v1 hosts its own place in the memory hierarchy."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            return path.rstrip("/")
    return ""


def remove_cgroups(path: str) -> None:
    """The empty cgroups below `path`, in every hierarchy, and `path` itself."""
    for hierarchy in [Path("/sys/fs/cgroup"), *Path("/sys/fs/cgroup").iterdir()]:
        top = hierarchy / path.lstrip("/")
        if path.strip("/") and top.is_dir():
            for directory, _, _ in os.walk(top, topdown=False):
                try:
                    Path(directory).rmdir()
                except OSError as error:
                    print(f"bench: cgroup {directory} stays: {error}")
