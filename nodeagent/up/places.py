"""Where a node's files, sockets and pods are, and the command lines of its daemons."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path

CSI_DRIVER = "hostpath.csi.nodeagent"


@dataclass(frozen=True, slots=True)
class Places:
    """`config` is crid's TOML file, if there is one; `cri` a foreign runtime's socket, which makes crid unnecessary."""

    root: Path
    state: Path
    manifests: Path
    kubelet_root: Path
    log_root: Path
    logs: Path
    csi_data: Path
    config: Path | None = None
    cri: str = ""
    node_name: str = ""
    agent_options: tuple[str, ...] = field(default=())

    @property
    def cri_socket(self) -> str:
        return self.cri or str(self.state / "cri.sock")

    @property
    def agent_socket(self) -> Path:
        return self.state / "agent.sock"

    def crid(self, *verb: str) -> list[str]:
        """The daemon, or one of its verbs, which take the same settings."""
        command = [sys.executable, "-m", "cri.server.main", *verb[:1], "--root", str(self.root)]
        if verb[:1] != ("import",):
            command += ["--state", str(self.state)]
        if self.config is not None:
            command += ["--config", str(self.config)]
        return command + list(verb[1:])

    def agent(self, manifests: Path | None = None) -> list[str]:
        return [
            sys.executable, "-m", "nodeagent.daemon",
            "--root", str(self.root),
            "--state", str(self.state),
            "--manifests", str(manifests or self.manifests),
            "--cri", self.cri_socket,
            "--kubelet-root", str(self.kubelet_root),
            "--log-root", str(self.log_root),
            *(("--node-name", self.node_name) if self.node_name else ()),
            *self.agent_options,
        ]  # fmt: skip

    def csi_driver(self) -> list[str]:
        endpoint = self.kubelet_root / "plugins" / CSI_DRIVER / "csi.sock"
        return [
            sys.executable, "-m", "csi.hostpath.main",
            "--name", CSI_DRIVER,
            "--endpoint", f"unix://{endpoint}",
            "--registration-dir", str(self.kubelet_root / "plugins_registry"),
            "--data-dir", str(self.csi_data),
        ]  # fmt: skip
