"""Our own crid, started for the bench in temporary directories with a bridge of its own."""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.bench.runtimes import Daemon, Runtime, free_subnet, remove_cgroups, remove_link

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


class Crid(Runtime):
    name = "crid"

    def __init__(self, registry: str) -> None:
        super().__init__(registry)
        # A short path: a unix socket's may have 107 bytes, and the pods' sockets lie below.
        self._home = Path(tempfile.mkdtemp(prefix="na-b", dir="/tmp"))
        self._bridge = f"nab{self.mark[:8]}"
        self._daemon: Daemon | None = None
        self.address = f"unix://{self._home}/cri.sock"
        self.cgroup_parent = f"/bench{self.mark}"

    def start(self) -> None:
        certs = self._home / "certs.d" / self.registry
        if not certs.exists():
            certs.mkdir(parents=True)
            (certs / "hosts.toml").write_text(HOSTS.format(registry=self.registry))
            values = {"home": self._home, "bridge": self._bridge, "subnet": free_subnet(), "cgroup": self.cgroup_parent}
            (self._home / "crid.toml").write_text(CONFIG.format(**values))
        command = [sys.executable, "-m", "cri.server.main", "--config", str(self._home / "crid.toml")]
        self._daemon = Daemon(command, self._home / "crid.log")

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
        remove_link(self._bridge)
        remove_cgroups(self.cgroup_parent)
        shutil.rmtree(self._home, ignore_errors=True)
