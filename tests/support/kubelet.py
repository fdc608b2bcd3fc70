"""The real kubelet, standalone: pods from a folder of manifests, no API server, on any CRI socket.

    kubelet = Kubelet(base, crid.socket, "/kubelet")
    await kubelet.start()
    kubelet.put("web", document)
    await kubelet.until(lambda: kubelet.status("web").get("phase") == "Running")

It runs in mount and cgroup namespaces of its own, for it writes to places that it cannot be talked out of:

    /var/lib/kubelet, /var/log/containers    a tmpfs that only it sees
    sysctls of the host                      files of ours over /proc/sys hold what it would set, so it sets nothing
    cgroups                                  its root is the cgroup of the tests, and there `cgroup`

It serves on loopback only and leaves iptables alone. Everything else is below `base`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import yaml

from tests.support import peers

READY_SECONDS = 60.0
SECONDS = 60.0
NODE = "node-k"

# What the kubelet wants the kernel to do (pkg/util/sysctl of k8s.io/component-helpers).
SYSCTLS = {
    "vm/overcommit_memory": 1,
    "vm/panic_on_oom": 0,
    "kernel/panic": 10,
    "kernel/panic_on_oops": 1,
    "kernel/keys/root_maxkeys": 1_000_000,
    "kernel/keys/root_maxbytes": 25_000_000,
}

T = TypeVar("T")

SETUP = """
set -e
base=$1; shift
mount -t tmpfs none /var/lib
mount -t tmpfs none /var/log
find "$base/sysctl" -type f | while read -r file; do mount --bind "$file" "/proc/sys/${file#$base/sysctl/}"; done
kinds=$(awk '/ - cgroup / {sub(".*/", "", $5); print $5}' /proc/self/mountinfo)
if [ -n "$kinds" ]; then
    umount -R -l /sys/fs/cgroup
    mount -t tmpfs none /sys/fs/cgroup
    for kind in $kinds; do
        mkdir "/sys/fs/cgroup/$kind"
        case $kind in systemd) option=none,name=systemd ;; *) option=$kind ;; esac
        mount -t cgroup -o "$option" cgroup "/sys/fs/cgroup/$kind"
    done
fi
exec "$@"
"""


class Kubelet:
    """One kubelet. Raises peers.PeerUnavailable where it cannot be built."""

    def __init__(self, base: Path, cri: Path, cgroup: str) -> None:
        self.base = base
        self.manifests, self.root, self.logs = base / "manifests", base / "root", base / "pods"
        for folder in (self.manifests, self.root, self.logs, base / "certs", base / "plugins"):
            folder.mkdir(parents=True)
        self._program = peers.tool("kubelet")
        self._cgroup = cgroup
        self.log = base / "kubelet.log"
        self.port, self.plain_port = _free_ports(2)
        self.process: subprocess.Popen[bytes] | None = None
        self.certificate = base / "certs" / "kubelet.pem"
        self._write_config(cri)
        for name, value in SYSCTLS.items():
            file = base / "sysctl" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"{value}\n")

    def _write_config(self, cri: Path) -> None:
        subject = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=kubelet"
        files = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "kubelet.key", "-out", "kubelet.pem"]
        subprocess.run([*subject.split(), *files], cwd=self.base / "certs", capture_output=True, check=True, timeout=60)
        (self.base / "resolv.conf").write_text("nameserver 127.0.0.1\n")
        config = {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "containerRuntimeEndpoint": f"unix://{cri}",
            "staticPodPath": str(self.manifests),
            "podLogsDir": str(self.logs),
            "volumePluginDir": str(self.base / "plugins"),
            "resolvConf": str(self.base / "resolv.conf"),
            "failCgroupV1": False,
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": self._cgroup,
            "enforceNodeAllocatable": [],
            "address": "127.0.0.1",
            "port": self.port,
            "readOnlyPort": self.plain_port,
            "healthzPort": 0,
            "tlsCertFile": str(self.certificate),
            "tlsPrivateKeyFile": str(self.certificate.with_suffix(".key")),
            "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
            "authorization": {"mode": "AlwaysAllow"},
            "makeIPTablesUtilChains": False,
            "protectKernelDefaults": False,
            "failSwapOn": False,
            "localStorageCapacityIsolation": False,
            # The machine of the tests may be short of anything: that is not what they are about.
            "evictionHard": {"memory.available": "0%", "nodefs.available": "0%", "imagefs.available": "0%"},
            "imageGCHighThresholdPercent": 100,
            "imageGCLowThresholdPercent": 99,
            "fileCheckFrequency": "200ms",
            "syncFrequency": "1s",
            "oomScoreAdj": 0,
            "registerNode": False,
            "containerLogMaxSize": "10Ki",
            "containerLogMonitorInterval": "3s",  # its least
            "featureGates": {
                "ContainerStopSignals": True,
                "CRIListStreaming": True,
                "EventedPLEG": True,
                "PodAndContainerStatsFromCRI": True,
            },
        }
        (self.base / "config.yaml").write_text(yaml.safe_dump(config))

    async def start(self) -> None:
        """Start it and wait until it answers; also again after a stop()."""
        for folder in _cgroups(self._cgroup):
            folder.mkdir(exist_ok=True)
        command = [
            str(self._program), f"--config={self.base}/config.yaml", f"--root-dir={self.root}",
            f"--cert-dir={self.base}/certs", f"--hostname-override={NODE}", "-v=2",
        ]  # fmt: skip
        apart = ["unshare", "--mount", "--cgroup", "--propagation", "private", "sh", "-c", SETUP, "sh", str(self.base)]
        self._spawn([*apart, *command])
        await self.until(self._answers, READY_SECONDS)

    def _spawn(self, command: list[str]) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    def stop(self) -> None:
        """End it; its pods run on."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(10)

    def clean(self) -> None:
        """Once it is stopped and its pods are removed: the cgroups that it made."""
        for top in _cgroups(self._cgroup):
            for folder, _, _ in os.walk(top, topdown=False):
                os.rmdir(folder)

    def _answers(self) -> bool:
        with contextlib.suppress(OSError):
            return self.get("/healthz") == "ok"
        return False

    def put(self, name: str, document: dict[str, Any]) -> None:
        """A manifest appears, or is replaced, at once."""
        fresh = self.base / f"{name}.json"
        fresh.write_text(json.dumps(document))
        fresh.rename(self.manifests / f"{name}.json")

    def remove(self, name: str) -> None:
        (self.manifests / f"{name}.json").unlink()

    def get(self, path: str) -> str:
        """A page of the authenticated API."""
        tls = ssl.create_default_context(cafile=str(self.certificate))
        try:
            with urllib.request.urlopen(self.url(path), timeout=10, context=tls) as answer:
                return str(answer.read().decode())
        except urllib.error.HTTPError as error:
            error.add_note(error.read(4096).decode(errors="replace"))
            raise

    def url(self, path: str) -> str:
        return f"https://127.0.0.1:{self.port}{path}"

    def pods(self) -> list[dict[str, Any]]:
        """v1.Pod of each pod, from the read-only port."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.plain_port}/pods", timeout=10) as answer:
            return json.load(answer)["items"] or []

    def status(self, name: str) -> dict[str, Any]:
        """status of the pod of one manifest; empty while there is none."""
        found = [pod["status"] for pod in self.pods() if pod["metadata"]["name"] == f"{name}-{NODE}"]
        return found[0] if found else {}

    def container(self, name: str, container: str) -> dict[str, Any]:
        """Its containerStatus; empty while there is none."""
        found = [each for each in self.status(name).get("containerStatuses", []) if each["name"] == container]
        return found[0] if found else {}

    def ready(self, name: str) -> bool:
        conditions = self.status(name).get("conditions", [])
        return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)

    async def until(self, condition: Callable[[], T], seconds: float = SECONDS) -> T:
        """What the condition comes to be, once that is true; AssertionError with the log when it does not."""
        deadline = time.monotonic() + seconds
        while not (found := await asyncio.to_thread(condition)):
            assert self.process is not None
            assert self.process.poll() is None, f"the kubelet ended with {self.process.returncode}:\n{self.tail()}"
            assert time.monotonic() < deadline, f"not within {seconds:g} s; the kubelet said:\n{self.tail()}"
            await asyncio.sleep(0.1)
        return found

    def tail(self, size: int = 12000) -> str:
        return self.log.read_text(errors="replace")[-size:] if self.log.exists() else ""


def _cgroups(path: str) -> list[Path]:
    """Where a cgroup is that the kubelet calls `path`: below our own in each v1 hierarchy, or at the root of v2."""
    own = {kind: at for _, kind, at in (line.split(":", 2) for line in _lines("/proc/self/cgroup"))}
    folders = []
    for line in _lines("/proc/self/mountinfo"):
        place, kind = line.split(" ")[4], line.partition(" - ")[2].split(" ")[0]
        if kind == "cgroup":
            name = place.rpartition("/")[2]
            folders.append(Path(place + own.get(name, own.get(f"name={name}", "/")).rstrip("/") + path))
    return folders or [Path("/sys/fs/cgroup" + path)]


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines()


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as held:
        probes = [held.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
