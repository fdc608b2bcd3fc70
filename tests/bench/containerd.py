"""containerd with runc, built by tests.support.peers and started for the bench with Debian's CNI plugins."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from tests.bench.payload import PAUSE
from tests.bench.runtimes import Daemon, Runtime, free_subnet, own_cgroup, remove_cgroups, remove_link
from tests.support import peers

CNI_BIN = "/usr/lib/cni"
CONFIG = """\
version = 3
root = "{home}/root"
state = "{home}/state"
disabled_plugins = ["io.containerd.nri.v1.nri", "io.containerd.tracing.processor.v1.otlp"]
[grpc]
address = "{home}/containerd.sock"
[ttrpc]
address = "{home}/containerd.sock.ttrpc"
[plugins."io.containerd.internal.v1.opt"]
path = "{home}/opt"
[plugins."io.containerd.cri.v1.runtime"]
restrict_oom_score_adj = true
[plugins."io.containerd.cri.v1.runtime".cni]
bin_dirs = ["{cni_bin}"]
conf_dir = "{home}/net.d"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
BinaryName = "{runc}"
SystemdCgroup = false
[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "{pause}"
[plugins."io.containerd.cri.v1.images".registry]
config_path = "{home}/certs.d"
"""
HOSTS = """\
server = "http://{registry}"
[host."http://{registry}"]
capabilities = ["pull", "resolve"]
"""


class Containerd(Runtime):
    """Raises PeerUnavailable when it cannot be built here, FileNotFoundError without the CNI plugins."""

    name = "containerd"

    def __init__(self, registry: str) -> None:
        super().__init__(registry)
        self._binaries = {tool: peers.tool(tool) for tool in ("containerd", "containerd-shim-runc-v2", "runc")}
        if not Path(CNI_BIN, "bridge").exists():
            raise FileNotFoundError(f"{CNI_BIN}/bridge (apt-get install containernetworking-plugins)")
        self._home = Path(tempfile.mkdtemp(prefix="na-b", dir="/tmp"))
        self._bridge = f"nac{self.mark[:8]}"
        self._daemon: Daemon | None = None
        self.address = f"unix://{self._home}/containerd.sock"
        self.cgroup_parent = f"{own_cgroup()}/bench{self.mark}"

    def start(self) -> None:
        if not (self._home / "config.toml").exists():
            self._configure()
        command = [str(self._binaries["containerd"]), "--config", str(self._home / "config.toml")]
        folders = [str(self._binaries["runc"].parent), os.environ["PATH"]]
        self._daemon = Daemon(command, self._home / "containerd.log", {**os.environ, "PATH": os.pathsep.join(folders)})

    def _configure(self) -> None:
        certs, networks = self._home / "certs.d" / self.registry, self._home / "net.d"
        for folder in (certs, networks):
            folder.mkdir(parents=True)
        (certs / "hosts.toml").write_text(HOSTS.format(registry=self.registry))
        (networks / "10-bench.conflist").write_text(json.dumps(self._conflist()))
        values = {"home": self._home, "cni_bin": CNI_BIN, "runc": self._binaries["runc"], "pause": self.image(PAUSE)}
        (self._home / "config.toml").write_text(CONFIG.format(**values))

    def _conflist(self) -> dict[str, object]:
        bridge = {
            "type": "bridge",
            "bridge": self._bridge,
            "isGateway": True,
            "ipMasq": shutil.which("iptables") is not None,
            "ipam": {
                "type": "host-local",
                "dataDir": f"{self._home}/ipam",
                "ranges": [[{"subnet": str(free_subnet())}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        }
        portmap = {"type": "portmap", "capabilities": {"portMappings": True}}
        return {"cniVersion": "1.0.0", "name": self._bridge, "plugins": [bridge, portmap]}

    def restart(self) -> float:
        assert self._daemon is not None
        self._daemon.stop()
        begun = time.monotonic()
        self.start()
        return begun

    def ended(self) -> bool:
        return self._daemon is not None and self._daemon.ended()

    def last_words(self) -> str:
        return self._daemon.last_words() if self._daemon else ""

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        if self._daemon is not None:
            self._daemon.stop()
        self._unmount()
        remove_link(self._bridge)
        remove_cgroups(self.cgroup_parent)
        shutil.rmtree(self._home, ignore_errors=True)

    def _unmount(self) -> None:
        """Mounts that an interrupted run leaves below our directory, the last first."""
        mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        for mount in reversed([mount for mount in mounts if mount.startswith(f"{self._home}/")]):
            subprocess.run(["umount", "-l", mount], check=False, timeout=20)
