"""Our own crid, started for the bench in temporary directories with a bridge of its own."""

from __future__ import annotations

import os
import sys

from tests.bench.started import Started, free_subnet

CONFIG = """\
root = "{home}/root"
state = "{home}/state"
listen = "{home}/cri.sock"
[network]
conf_dir = "{home}/net.d"
cache_dir = "{home}/cni"
bridge = "{bridge}"
subnet = "{subnet}"
[images]
registries = ["{home}/certs.d"]
[cgroup]
parent = "{cgroup}"
"""
HOSTS = """\
server = "http://{registry}"
[host."http://{registry}"]
"""


class Crid(Started):
    name = "crid"

    def __init__(self, registry: str) -> None:
        super().__init__(registry, "nab")
        self.address = f"unix://{self.home}/cri.sock"
        self.cgroup_parent = f"/bench{self.mark}"

    def configure(self) -> None:
        certs = self.home / "certs.d" / self.registry
        certs.mkdir(parents=True)
        (certs / "hosts.toml").write_text(HOSTS.format(registry=self.registry))
        values = {"home": self.home, "bridge": self.bridge, "subnet": free_subnet(), "cgroup": self.cgroup_parent}
        (self.home / "crid.toml").write_text(CONFIG.format(**values))

    def command(self) -> list[str]:
        return [sys.executable, "-m", "cri.server.main", "--config", str(self.home / "crid.toml")]

    def environment(self) -> dict[str, str]:
        """With bytecode of its own, as an installed crid has: the first start writes what the next ones read."""
        given = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        return given | {"PYTHONPYCACHEPREFIX": str(self.home / "bytecode")}
