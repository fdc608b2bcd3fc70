"""What crid is told at start: command line over TOML file over defaults.

README.md shows every key with its default. How a table is read, and what is refused, stands in settings.py.
"""

from __future__ import annotations

import argparse
import ipaddress
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cri.server.nri.config import NriConfig
from cri.server.settings import ConfigError, Table
from cri.server.streaming.config import StreamingConfig
from images.errors import ImageError
from images.reference import Reference

#: The handler's name of the built-in runtime.
BUILT_IN = "crid"

#: Bytes: more than any disk has.
MAX_LIMIT = 1 << 62

_HANDLER = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class NetworkConfig:
    """[network]: where CNI configuration comes from, and the bridge network for a node that has none."""

    conf_dir: Path = Path("/etc/cni/net.d")
    bin_dirs: tuple[Path, ...] = (Path("/opt/cni/bin"),)
    cache_dir: Path = Path("/var/lib/cni/results")
    bridge: str = "na0"
    subnet: str = "10.77.0.0/16"

    @classmethod
    def of(cls, table: Table) -> NetworkConfig:
        """The settings of the table. Raises ConfigError."""
        default = cls()
        config = cls(
            conf_dir=table.path("conf_dir", default.conf_dir),
            bin_dirs=table.paths("bin_dirs", default.bin_dirs),
            cache_dir=table.path("cache_dir", default.cache_dir),
            bridge=table.text("bridge", default.bridge),
            subnet=table.text("subnet", default.subnet),
        )
        table.refuse_rest()
        if not 1 <= len(config.bridge) <= 15:  # IFNAMSIZ
            raise ConfigError(f"{table.name} bridge: {config.bridge!r} is no interface name (1-15 characters)")
        try:
            ipaddress.ip_network(config.subnet)
        except ValueError as error:
            raise ConfigError(f"{table.name} subnet: {error}") from error
        return config


@dataclass(frozen=True, slots=True)
class CheckpointConfig:
    """[checkpoint]: the criu to use, a path or a name, and the bytes that one checkpoint may take on the disk."""

    criu: str = "criu"
    limit: int = 64 << 30

    @classmethod
    def of(cls, table: Table) -> CheckpointConfig:
        """The settings of the table. Raises ConfigError."""
        default = cls()
        config = cls(table.text("criu", default.criu), table.number("limit", default.limit, most=MAX_LIMIT))
        table.refuse_rest()
        return config


@dataclass(frozen=True, slots=True)
class RuntimeConfig:
    """[runtimes.NAME]: a handler that pods can ask for. An empty `path` is the runtime that is built in.

    `pod_annotations` and `container_annotations` are shell patterns: what matches is handed to the runtime, as some of
    them are configured that way; all else stays inert.
    """

    name: str
    path: str = ""
    args: tuple[str, ...] = ()
    pod_annotations: tuple[str, ...] = ()
    container_annotations: tuple[str, ...] = ()
    privileged_without_host_devices: bool = False
    cgroup_writable: bool = False

    @classmethod
    def of(cls, name: str, table: Table) -> RuntimeConfig:
        """The settings of the table, which is named like the handler. Raises ConfigError."""
        if not _HANDLER.fullmatch(name):
            raise ConfigError(f"{table.name}: {name!r} is no handler name (RuntimeClass: a DNS label)")
        config = cls(
            name=name,
            path="" if name == BUILT_IN else table.text("path", name),
            args=table.texts("args"),
            pod_annotations=table.texts("pod_annotations"),
            container_annotations=table.texts("container_annotations"),
            privileged_without_host_devices=table.flag("privileged_without_host_devices"),
            cgroup_writable=table.flag("cgroup_writable"),
        )
        table.refuse_rest()
        return config


@dataclass(frozen=True, slots=True)
class Config:
    """All settings. The keys of the file are the names here, but for [images] and [cgroup]."""

    root: Path = Path("/var/lib/nodeagent")
    state: Path = Path("/run/nodeagent")
    listen: Path = Path("/run/nodeagent/cri.sock")
    network: NetworkConfig = field(default_factory=NetworkConfig)
    #: [images] registries: directories with one HOST/hosts.toml for each registry that needs one.
    registries: tuple[Path, ...] = (Path("/etc/nodeagent/certs.d"), Path("/etc/containerd/certs.d"))
    #: [images] pinned: references of images that the kubelet may not collect as garbage.
    pinned: tuple[str, ...] = ()
    #: [cgroup] parent: logical cgroup of a sandbox that names no cgroup_parent itself.
    cgroup_parent: str = "/"
    runtimes: tuple[RuntimeConfig, ...] = (RuntimeConfig(BUILT_IN),)
    #: The handler of a pod that asks for none.
    default_runtime: str = BUILT_IN
    #: Where devices are described (Container Device Interface); a later directory wins.
    cdi_spec_dirs: tuple[Path, ...] = (Path("/etc/cdi"), Path("/var/run/cdi"))
    #: Whether a device belongs to run_as_user and run_as_group inside, for those who are not root there.
    device_ownership_from_security_context: bool = False
    nri: NriConfig = field(default_factory=NriConfig)
    streaming: StreamingConfig = field(default_factory=StreamingConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)


def parse_arguments(argv: Sequence[str] | None = None) -> Config:
    """The configuration of this start. Exits for a bad command line, raises ConfigError for a bad file."""
    parser = argparse.ArgumentParser(prog="crid", description="The container runtime daemon (CRI v1).")
    parser.add_argument("--root", type=Path, help="what survives a reboot (default /var/lib/nodeagent)")
    parser.add_argument("--state", type=Path, help="what does not (default /run/nodeagent)")
    parser.add_argument("--listen", type=Path, help="unix socket of the CRI (default STATE/cri.sock)")
    parser.add_argument("--config", type=Path, help="TOML file with these and more settings")
    return from_arguments(parser.parse_args(argv))


def from_arguments(given: argparse.Namespace) -> Config:
    """The file that `config` names, overruled by `root`, `state` and `listen` where these are given."""
    document = _read(given.config) if given.config else {}
    for key in ("root", "state", "listen"):
        if (value := getattr(given, key, None)) is not None:
            document[key] = str(value)
    return from_document(document, str(given.config or "command line"))


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: {error}") from error


def from_document(document: dict[str, Any], source: str) -> Config:
    """A Config of a TOML document. Raises ConfigError for unknown keys, wrong types and impossible values."""
    table = Table(document, source)
    defaults = Config()
    state = table.path("state", defaults.state)
    images, cgroup = table.table("images"), table.table("cgroup")
    config = Config(
        root=table.path("root", defaults.root),
        state=state,
        listen=table.path("listen", state / "cri.sock"),
        network=NetworkConfig.of(table.table("network")),
        registries=images.paths("registries", defaults.registries),
        pinned=_references(images.texts("pinned"), images.name),
        cgroup_parent=cgroup.text("parent", defaults.cgroup_parent),
        runtimes=_runtimes(table.table("runtimes")),
        default_runtime=table.text("default_runtime", defaults.default_runtime),
        cdi_spec_dirs=table.paths("cdi_spec_dirs", defaults.cdi_spec_dirs),
        device_ownership_from_security_context=table.flag("device_ownership_from_security_context"),
        nri=NriConfig.of(table.table("nri"), state),
        streaming=StreamingConfig.of(table.table("streaming")),
        checkpoint=CheckpointConfig.of(table.table("checkpoint")),
    )
    for part in (table, images, cgroup):
        part.refuse_rest()
    names = [runtime.name for runtime in config.runtimes]
    if config.default_runtime not in names:
        raise ConfigError(f"{source}: default_runtime {config.default_runtime!r} is none of {', '.join(names)}")
    return config


def _runtimes(table: Table) -> tuple[RuntimeConfig, ...]:
    """The handlers; the built-in one is always among them, and it is the first."""
    names = [BUILT_IN, *(name for name in table.names() if name != BUILT_IN)]
    return tuple(RuntimeConfig.of(name, table.table(name)) for name in names)


def _references(names: tuple[str, ...], source: str) -> tuple[str, ...]:
    for name in names:
        try:
            Reference.parse(name)
        except ImageError as error:
            raise ConfigError(f"{source} pinned: {error}") from error
    return names
