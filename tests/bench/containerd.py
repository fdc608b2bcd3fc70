"""containerd, built by tests.support.peers, with runc of there or another OCI runtime, and Debian's CNI plugins."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

from tests.bench.payload import PAUSE
from tests.bench.started import Started, free_subnet, own_cgroup
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
BinaryName = "{oci}"
SystemdCgroup = false
[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "{pause}"
[plugins."io.containerd.cri.v1.images".registry]
config_path = "{home}/certs.d"
"""
#: Debian 12's crun knows no OCI version but 1.0, and containerd writes a newer one: this costs some 2 ms per container.
#: On a hybrid host with controllers on v2 it refuses to start anything, and says so.
WRAPPER = """\
#!/bin/sh
case " $* " in *" create "*)
    bundle="${{*#*--bundle }}"
    sed -i 's/"ociVersion":"[^"]*"/"ociVersion":"1.0.2"/' "${{bundle%% *}}/config.json"
esac
exec {program} "$@"
"""
HOSTS = """\
server = "http://{registry}"
[host."http://{registry}"]
capabilities = ["pull", "resolve"]
"""


class Containerd(Started):
    """`oci` is an OCI runtime that is installed here, such as crun; "" is the runc that is built.

    Raises PeerUnavailable when it cannot be built here, FileNotFoundError without `oci` or the CNI plugins.
    """

    def __init__(self, registry: str, oci: str = "") -> None:
        self.name = f"containerd+{oci}" if oci else "containerd"
        self._binaries = {tool: peers.tool(tool) for tool in ("containerd", "containerd-shim-runc-v2")}
        self._runtime = _installed(oci) if oci else peers.tool("runc")
        self._wrapped = bool(oci)
        if not Path(CNI_BIN, "bridge").exists():
            raise FileNotFoundError(f"{CNI_BIN}/bridge (apt-get install containernetworking-plugins)")
        super().__init__(registry, "nac")
        self.address = f"unix://{self.home}/containerd.sock"
        self.cgroup_parent = f"{own_cgroup()}/bench{self.mark}"
        self._nat_was_there = _nat_rules() is not None

    def configure(self) -> None:
        certs, networks = self.home / "certs.d" / self.registry, self.home / "net.d"
        for folder in (certs, networks):
            folder.mkdir(parents=True)
        (certs / "hosts.toml").write_text(HOSTS.format(registry=self.registry))
        (networks / "10-bench.conflist").write_text(json.dumps(self._conflist()))
        values = {"home": self.home, "cni_bin": CNI_BIN, "oci": self._oci(), "pause": self.image(PAUSE)}
        (self.home / "config.toml").write_text(CONFIG.format(**values))

    def _oci(self) -> Path:
        if not self._wrapped:
            return self._runtime
        wrapper = self.home / self._runtime.name
        wrapper.write_text(WRAPPER.format(program=self._runtime))
        wrapper.chmod(0o755)
        return wrapper

    def command(self) -> list[str]:
        return [str(self._binaries["containerd"]), "--config", str(self.home / "config.toml")]

    def environment(self) -> dict[str, str]:
        folders = [str(self._binaries["containerd-shim-runc-v2"].parent), os.environ["PATH"]]
        return {**os.environ, "PATH": os.pathsep.join(folders)}

    def _conflist(self) -> dict[str, object]:
        bridge = {
            "type": "bridge",
            "bridge": self.bridge,
            "isGateway": True,
            "ipMasq": shutil.which("iptables") is not None,
            "ipam": {
                "type": "host-local",
                "dataDir": f"{self.home}/ipam",
                "ranges": [[{"subnet": str(free_subnet())}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        }
        portmap = {"type": "portmap", "capabilities": {"portMappings": True}}
        return {"cniVersion": "1.0.0", "name": self.bridge, "plugins": [bridge, portmap]}

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        if not self._nat_was_there and _nat_rules() == []:
            subprocess.run(["nft", "delete", "table", "ip", "nat"], check=False, timeout=20)


def _installed(program: str) -> Path:
    found = shutil.which(program)
    if found is None:
        raise FileNotFoundError(f"{program} is not installed (apt-get install {program})")
    return Path(found)


def _nat_rules() -> list[str] | None:
    """The rules in iptables' table `nat`, which the CNI plugin's masquerading makes and leaves; None without it."""
    listed = subprocess.run(
        ["nft", "list", "table", "ip", "nat"], capture_output=True, text=True, check=False, timeout=20
    )
    if listed.returncode:
        return None
    structure = ("table ", "chain ", "type ", "}")
    return [line for line in listed.stdout.splitlines() if line.strip() and not line.strip().startswith(structure)]
