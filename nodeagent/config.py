"""What the agent is told at start."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nodeagent.pods import names

#: Bytes of struct sockaddr_un (unix(7)), less the closing NUL.
SOCKET_PATH_LIMIT = 107
ROOT = Path("/var/lib/nodeagent")
STATE = Path("/run/nodeagent")
MANIFESTS = Path("/etc/nodeagent/manifests")
KUBELET_ROOT = Path("/var/lib/kubelet")
LOG_ROOT = Path("/var/log/pods")


@dataclass(frozen=True, slots=True)
class Config:
    """`cri` is the path of a unix socket. Sizes in bytes."""

    root: Path = ROOT
    state: Path = STATE
    manifests: Path = MANIFESTS
    cri: str = str(STATE / "cri.sock")
    kubelet_root: Path = KUBELET_ROOT
    log_root: Path = LOG_ROOT
    node_name: str = ""
    cgroup_root: str = "/"
    log_size: int = 10 << 20
    log_files: int = 5

    @property
    def socket(self) -> Path:
        """Of the status API."""
        return self.state / "agent.sock"

    @property
    def database(self) -> Path:
        """Ledger and records."""
        return self.root / "ledger.db"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The agent's flags; `nodeagent up` has them too."""
    parser.add_argument("--root", type=Path, default=ROOT, help="what survives a reboot (default: %(default)s)")
    parser.add_argument("--state", type=Path, default=STATE, help="sockets; what does not (default: %(default)s)")
    parser.add_argument(
        "--manifests", type=Path, default=MANIFESTS, help="directory of pod manifests (default: %(default)s)"
    )
    parser.add_argument("--cri", default="", help="socket of the container runtime (default: unix://STATE/cri.sock)")
    parser.add_argument(
        "--kubelet-root", type=Path, default=KUBELET_ROOT, help="pod directories, plugins (default: %(default)s)"
    )
    parser.add_argument("--log-root", type=Path, default=LOG_ROOT, help="container logs (default: %(default)s)")
    parser.add_argument("--node-name", default="", help="what pods see as their node (default: the host's name)")
    parser.add_argument("--cgroup-root", default="/", help="cgroup above kubepods (default: %(default)s)")
    parser.add_argument(
        "--log-size", type=int, default=10 << 20, help="bytes of a log before it is rotated (default: %(default)s)"
    )
    parser.add_argument(
        "--log-files", type=int, default=5, help="log files kept for each container (default: %(default)s)"
    )


def from_arguments(given: argparse.Namespace) -> Config:
    """Raises ValueError for settings that contradict each other."""
    # Without links: what is mounted below is looked for in the kernel's tables, which have none. Manifests keep the
    # name that they were given, of which their pods' identity is made.
    root, state, kubelet_root = (Path(os.path.realpath(each)) for each in (given.root, given.state, given.kubelet_root))
    cri = given.cri.removeprefix("unix://") or str(state / "cri.sock")
    if not re.fullmatch(r"(/[A-Za-z0-9_][A-Za-z0-9_.-]*)+|/", given.cgroup_root):
        raise ValueError(f"--cgroup-root: {given.cgroup_root!r} is no path such as /nodeagent")
    if len(os.fsencode(state / "agent.sock")) > SOCKET_PATH_LIMIT:
        raise ValueError(f"--state: {given.state}: too long; the path of a socket in it has {SOCKET_PATH_LIMIT} bytes")
    if given.manifests.exists() and not given.manifests.is_dir():
        raise ValueError(f"--manifests: {given.manifests} is no directory")
    if given.node_name and (why := names.subdomain(given.node_name)):
        raise ValueError(f"--node-name: {given.node_name!r}: {why}")
    if given.log_size < 1 << 10 or given.log_files < 2:
        raise ValueError("--log-size must be at least 1024 and --log-files at least 2")
    return Config(
        root=root,
        state=state,
        manifests=given.manifests.absolute(),
        cri=cri,
        kubelet_root=kubelet_root,
        log_root=given.log_root.absolute(),
        node_name=given.node_name,
        cgroup_root=given.cgroup_root,
        log_size=given.log_size,
        log_files=given.log_files,
    )


def parse_arguments(argv: Sequence[str] | None = None) -> Config:
    parser = argparse.ArgumentParser(prog="nodeagent run", description="The node agent alone, on any CRI runtime.")
    add_arguments(parser)
    given = parser.parse_args(argv)
    try:
        return from_arguments(given)
    except ValueError as error:
        parser.error(str(error))
