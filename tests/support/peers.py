"""Other projects' programs (crictl, critest, grpcurl, containerd, runc, ...), built once from their Go modules.

The tests and the bench want real peers: clients that were not written by us, and runtimes to measure against. They are
ordinary dependencies, pinned in peers.toml and fetched through the Go module proxy. Nothing of the product needs Go, so
where Go or the proxy is missing, `tool` raises `PeerUnavailable` and `require` skips the test with that reason.

    <cache>/<module>-<version>/
        go.mod, go.sum      the scratch module that pins the dependency
        bin/<tool>          appears by rename, so it is whole or absent
        lock                held while building: two test runs build once

The cache is `.cache/peers` in the checkout, or $NODEAGENT_PEERS. Build ahead of time with
`python -m tests.support.peers crictl grpcurl`.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

VERSIONS = Path(__file__).with_name("peers.toml")
CACHE = Path(os.environ.get("NODEAGENT_PEERS") or Path(__file__).parents[2] / ".cache" / "peers")
FETCH_TIMEOUT = 300.0  # seconds for the module proxy to deliver one module with what it requires
BUILD_TIMEOUT = 1200.0  # seconds to compile one tool; the largest, the kubelet, takes two minutes on two idle cores


class PeerUnavailable(Exception):
    """The tool is not built and cannot be built here; the message says why."""


@dataclass(frozen=True, slots=True)
class Peer:
    """One Go module of peers.toml and the programs built from it."""

    name: str
    module: str
    version: str
    tools: dict[str, str]
    flags: list[str] = field(default_factory=list)
    cgo: bool = False
    staging: str = ""

    @property
    def folder(self) -> Path:
        return CACHE / f"{self.name}-{self.version}"

    def ours(self, tool_name: str) -> Path | None:
        """The directory of a program that we have written on the module ("./name" in the table), beside this file."""
        relative = self.tools[tool_name]
        return VERSIONS.parent / relative if relative.startswith("./") else None

    def binary(self, tool_name: str) -> Path:
        if (sources := self.ours(tool_name)) is not None:  # a changed source is another program
            content = b"".join(path.read_bytes() for path in sorted(sources.glob("*.go")))
            tool_name += f"-{hashlib.sha256(content).hexdigest()[:12]}"
        return self.folder / "bin" / tool_name

    def package(self, tool_name: str) -> str:
        relative = self.tools[tool_name]
        if self.ours(tool_name) is not None:
            return relative
        return self.module if relative == "." else f"{self.module}/{relative}"


def peers() -> dict[str, Peer]:
    """Every tool's name with the module that it comes from."""
    modules = tomllib.loads(VERSIONS.read_text())
    known = (Peer(name, **table) for name, table in modules.items())
    return {tool_name: peer for peer in known for tool_name in peer.tools}


def tool(name: str) -> Path:
    """The built program's path; builds it when it is not in the cache.

    Raises PeerUnavailable with the reason (no Go, module proxy silent, compiler's last words).
    """
    peer = peers()[name]
    binary = peer.binary(name)
    if not binary.exists():
        with _locked(peer):
            if not binary.exists():
                _build(peer, name)
    return binary


def require(name: str) -> Path:
    """`tool` for tests: skips the test with the reason when the tool cannot be had."""
    try:
        return tool(name)
    except PeerUnavailable as reason:
        pytest.skip(str(reason))


@contextmanager
def _locked(peer: Peer) -> Iterator[None]:
    peer.folder.mkdir(parents=True, exist_ok=True)
    with (peer.folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build(peer: Peer, name: str) -> None:
    if shutil.which("go") is None:
        raise PeerUnavailable(f"{name}: Go is not installed (apt-get install golang-go, or see https://go.dev/dl)")
    if not (peer.folder / "go.sum").exists():
        _fetch(peer, name)
    package = peer.package(name)
    if (sources := peer.ours(name)) is not None:
        shutil.copytree(sources, peer.folder / package, dirs_exist_ok=True)
    # critest is no main package but a test suite that its authors ship compiled.
    verb = ["test", "-c"] if name == "critest" else ["build"]
    fresh = peer.binary(name).with_suffix(".new")
    fresh.parent.mkdir(exist_ok=True)
    _go(peer, name, [*verb, "-trimpath", *peer.flags, "-o", str(fresh), package], BUILD_TIMEOUT)
    fresh.rename(peer.binary(name))


def _fetch(peer: Peer, name: str) -> None:
    """Pins the module, and what all its tools require, in a scratch module; go.sum is written last."""
    replacements = _staging_replacements(peer, name) if peer.staging else ""
    (peer.folder / "go.mod").write_text(f"module peers.test/{peer.name}\n\n{replacements}")
    wanted = {peer.module if peer.ours(tool_name) else peer.package(tool_name) for tool_name in peer.tools}
    packages = [f"{package}@{peer.version}" for package in sorted(wanted)]
    _go(peer, name, ["get", *packages], FETCH_TIMEOUT)


def _staging_replacements(peer: Peer, name: str) -> str:
    """Kubernetes requires its libraries from ./staging of its own tree: here they come from their published modules."""
    (peer.folder / "go.mod").write_text(f"module peers.test/{peer.name}\n")
    answer = _go(peer, name, ["mod", "download", "-json", f"{peer.module}@{peer.version}"], FETCH_TIMEOUT)
    own = Path(json.loads(answer)["GoMod"]).read_text()
    libraries = re.findall(r"^\s*(\S+) => \./staging/", own, re.MULTILINE)
    return "".join(f"replace {library} => {library} {peer.staging}\n" for library in libraries)


def _go(peer: Peer, name: str, arguments: list[str], timeout: float) -> str:
    environment = {**os.environ, "GOFLAGS": "-mod=mod -buildvcs=false", "CGO_ENABLED": "1" if peer.cgo else "0"}
    command = ["nice", "go", *arguments]
    try:
        done = subprocess.run(
            command, cwd=peer.folder, env=environment, timeout=timeout, capture_output=True, text=True, check=False
        )
    except subprocess.TimeoutExpired as late:
        raise PeerUnavailable(f"{name}: `go {arguments[0]}` did not end within {timeout:.0f} s") from late
    if done.returncode != 0:
        last_words = "\n".join(done.stderr.strip().splitlines()[-5:])
        raise PeerUnavailable(f"{name}: `go {' '.join(arguments)}` in {peer.folder} failed: {last_words}")
    return done.stdout


def main() -> int:
    """Builds the tools named on the command line (all of them when none is named) and prints their paths."""
    status = 0
    for name in sys.argv[1:] or list(peers()):
        try:
            print(tool(name), flush=True)
        except (PeerUnavailable, KeyError) as reason:
            print(f"peers: {reason}", file=sys.stderr)
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
