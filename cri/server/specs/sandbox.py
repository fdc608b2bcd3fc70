"""From a CRI pod configuration to what the runtime makes: checked, and in the runtime's words."""

from __future__ import annotations

import ipaddress
import re
from typing import Any

from cni.podnetns import pod_sysctls
from cri.proto import api_pb2 as api
from cri.server.bandwidth import bandwidth
from cri.server.daemon import Daemon
from cri.server.errors import InvalidRequest
from cri.server.pods import Sandbox
from cri.server.security.sysctls import checked_sysctls
from cri.server.security.user_namespaces import mode_name
from cri.server.specs.resources import oci_resources, with_overhead
from runtime.spec import SandboxSpec

# The pod's identity becomes part of names and environment of plugins; Kubernetes' own are far narrower (CVE-2025-0750).
_IDENTITY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,252}")
#: Bytes of a configuration; Kubernetes allows 256 KiB of annotations.
CONFIG_LIMIT = 4 << 20
_HOSTNAME_LIMIT = 64  # __NEW_UTS_LEN (sethostname(2))


def check_config(config: api.PodSandboxConfig) -> None:
    """Whether the configuration makes sense by itself; raises InvalidRequest."""
    if config.ByteSize() > CONFIG_LIMIT:
        raise InvalidRequest(f"config takes {config.ByteSize()} bytes, more than the limit of {CONFIG_LIMIT}")
    if not config.HasField("metadata"):
        raise InvalidRequest("config.metadata is missing: it names the pod")
    for field in ("name", "namespace", "uid"):
        value = getattr(config.metadata, field)
        if not _IDENTITY.fullmatch(value):
            raise InvalidRequest(f"metadata.{field} {value[:80]!r} is not of the form {_IDENTITY.pattern}")
    if config.log_directory and (not config.log_directory.startswith("/") or "\0" in config.log_directory):
        raise InvalidRequest(f"log_directory {config.log_directory[:200]!r} is not an absolute path")
    if len(config.hostname.encode()) > _HOSTNAME_LIMIT or not config.hostname.isprintable():
        raise InvalidRequest(f"hostname {config.hostname[:80]!r} is no hostname of at most {_HOSTNAME_LIMIT} bytes")
    for port in config.port_mappings:
        _check_port(port)
    if config.linux.security_context.namespace_options.network != api.NODE:
        bandwidth(config.annotations)


def _check_port(port: api.PortMapping) -> None:
    if not (0 <= port.host_port <= 65535 and 0 <= port.container_port <= 65535):
        raise InvalidRequest(f"port mapping {port.host_port}:{port.container_port} is outside 0..65535")
    if port.protocol not in api.Protocol.values():
        raise InvalidRequest(f"port mapping {port.host_port}:{port.container_port}: unknown protocol {port.protocol}")
    try:
        ipaddress.ip_address(port.host_ip or "::")
    except ValueError as error:
        raise InvalidRequest(f"port mapping {port.host_port}:{port.container_port}: host_ip: {error}") from None


def pod_cgroup(daemon: Daemon, config: api.PodSandboxConfig) -> str:
    """The logical cgroup of the pod: the client's, else one below the configured parent.

    Raises InvalidRequest for systemd syntax and for paths that climb.
    """
    asked = config.linux.cgroup_parent
    if not asked:
        base = daemon.config.cgroup_parent.rstrip("/")
        return f"{base}/pod{config.metadata.uid}"
    names = asked.strip("/").split("/")
    odd = not asked.isprintable() or any(name in ("", ".", "..") for name in names)
    if not asked.startswith("/") or asked.endswith(".slice") or odd:
        raise InvalidRequest(
            f"cgroup_parent {asked[:200]!r} is no absolute cgroupfs path; the cgroup driver here is cgroupfs"
        )
    return "/" + "/".join(names)


def sandbox_spec(daemon: Daemon, sandbox: Sandbox) -> SandboxSpec:
    """The runtime's view of the sandbox; raises InvalidRequest."""
    linux, options = sandbox.config.linux, sandbox.options
    return SandboxSpec(
        id=sandbox.id,
        state_dir=str(daemon.sandbox_directory(sandbox.id)),
        hostname=sandbox.hostname,
        net=_namespace("network", options.network, {api.POD: "pod", api.NODE: "node"}),
        ipc=_namespace("ipc", options.ipc, {api.POD: "pod", api.NODE: "node"}),
        pid=_namespace("pid", options.pid, {api.POD: "pod", api.CONTAINER: "container", api.NODE: "node"}),
        sysctls=(pod_sysctls() if options.network == api.POD else {}) | checked_sysctls(linux.sysctls, options),
        cgroup_parent=sandbox.cgroup,
        resources=oci_resources(with_overhead(linux)) if linux.HasField("resources") else {},
        userns=sandbox.userns,
        runtime=sandbox.runtime,
    )


def _namespace(kind: str, mode: api.NamespaceMode, words: dict[Any, str]) -> str:
    if mode not in words:
        raise InvalidRequest(f"namespace_options.{kind} of a sandbox cannot be {mode_name(mode)}")
    return words[mode]
