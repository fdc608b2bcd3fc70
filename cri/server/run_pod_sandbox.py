"""RunPodSandbox: a pod's namespaces and network.

What is made, in order, and what takes it back:

    ledger entries     struck out when all below is undone
    directory, /etc    removed
    shim, namespaces   Pod.stop()
    network            CNI DEL
    record             from here on it is READY

A crash in between leaves entries in the ledger whose holder has no record: recovery takes those back the same way.
"""

from __future__ import annotations

import ipaddress
import re
import secrets
import time
from typing import Any

from cni.podnetns import pod_sysctls
from cri.proto import api_pb2 as api
from cri.server.daemon import Daemon
from cri.server.errors import AlreadyExists, InvalidRequest, Unavailable, words_of
from cri.server.etc_files import write_etc_files
from cri.server.pod_network import attachment_of
from cri.server.pods import Sandbox
from cri.server.resources import oci_resources, with_overhead
from cri.server.sandbox_end import take_back
from cri.server.store import sandbox_key
from cri.server.sysctls import checked_sysctls
from cri.server.user_namespaces import pod_maps
from runtime.linux.failpoints import failpoint
from runtime.linux.ledger import Effect
from runtime.spec import SandboxSpec

FAILPOINTS = ("crid.run_sandbox.after_ledger", "crid.run_sandbox.after_shim", "crid.run_sandbox.after_network")

# The pod's identity becomes part of names and environment of plugins; Kubernetes' own are far narrower (CVE-2025-0750).
_IDENTITY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,252}")
CONFIG_LIMIT = 4 << 20
"""Bytes of a configuration; Kubernetes allows 256 KiB of annotations."""
_HOSTNAME_LIMIT = 64  # __NEW_UTS_LEN (sethostname(2))


async def run_pod_sandbox(daemon: Daemon, request: api.RunPodSandboxRequest) -> api.RunPodSandboxResponse:
    """A new READY sandbox, or the outcome of the same request that is still under way or already done."""
    _check(daemon, request)
    key, asked = sandbox_key(request.config.metadata), request.SerializeToString(deterministic=True)
    if existing := daemon.store.named_sandbox(key):
        return api.RunPodSandboxResponse(pod_sandbox_id=_same(existing, request).id)
    id = await daemon.sandboxes_under_way.run(key, asked, lambda: _make(daemon, request))
    return api.RunPodSandboxResponse(pod_sandbox_id=id)


def _same(existing: Sandbox, request: api.RunPodSandboxRequest) -> Sandbox:
    """A repeated request for a sandbox that is READY is answered by it: its first answer may have been lost."""
    if existing.ready and (existing.config, existing.runtime_handler) == (request.config, request.runtime_handler):
        return existing
    what = "has another configuration" if existing.ready else "is stopped"
    raise AlreadyExists(
        f"sandbox {existing.id[:13]} of pod {existing.name}, attempt {existing.config.metadata.attempt}, {what}; "
        "remove it, or ask for the next attempt"
    )


def _check(daemon: Daemon, request: api.RunPodSandboxRequest) -> None:
    if daemon.stopping.is_set():
        raise Unavailable("crid is stopping")
    config = request.config
    if config.ByteSize() > CONFIG_LIMIT:
        raise InvalidRequest(f"config takes {config.ByteSize()} bytes, more than the limit of {CONFIG_LIMIT}")
    if not config.HasField("metadata"):
        raise InvalidRequest("config.metadata is missing: it names the pod")
    daemon.handlers.find(request.runtime_handler)
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


def _check_port(port: api.PortMapping) -> None:
    if not (0 <= port.host_port <= 65535 and 0 <= port.container_port <= 65535):
        raise InvalidRequest(f"port mapping {port.host_port}:{port.container_port} is outside 0..65535")
    if port.protocol not in api.Protocol.values():
        raise InvalidRequest(f"port mapping {port.host_port}:{port.container_port}: unknown protocol {port.protocol}")
    try:
        ipaddress.ip_address(port.host_ip or "::")
    except ValueError as error:
        raise InvalidRequest(f"port mapping {port.host_port}:{port.container_port}: host_ip: {error}") from None


async def _make(daemon: Daemon, request: api.RunPodSandboxRequest) -> str:
    await daemon.tidied.wait()
    sandbox = Sandbox(
        id=secrets.token_hex(32),
        config=request.config,
        runtime_handler=request.runtime_handler,
        cgroup=pod_cgroup(daemon, request.config),
        created_at=time.time_ns(),
        runtime=await daemon.handlers.runtime_of(request.runtime_handler),
    )
    spec = sandbox_spec(daemon, sandbox)
    if spec.userns is not None:
        await daemon.userns.check(sandbox.runtime["name"] if sandbox.runtime else "")
    directory = daemon.sandbox_directory(sandbox.id)
    daemon.ledger.record(*_effects(sandbox, str(directory)))
    try:
        failpoint("crid.run_sandbox.after_ledger")
        directory.mkdir(mode=0o700, parents=True)
        write_etc_files(directory / "etc", sandbox.config, spec.hostname, sandbox.userns)
        sandbox.pod = await daemon.runtime.create_sandbox(spec)
        sandbox.netns, sandbox.shim = sandbox.pod.netns_path, sandbox.pod.shim.to_json()
        failpoint("crid.run_sandbox.after_shim")
        if not sandbox.host_network:
            result = await daemon.cni.add(attachment_of(sandbox))
            sandbox.ips = tuple(str(ip.address.ip) for ip in result.ips)
            failpoint("crid.run_sandbox.after_network")
        await daemon.nri.run_pod(sandbox)
        sandbox.ready_at = time.time_ns()
        daemon.store.save_sandbox(sandbox)
    except BaseException as error:
        await daemon.nri.undo_pod(sandbox)
        await _take_back(daemon, sandbox, error)
        raise
    daemon.events.publish(api.CONTAINER_CREATED_EVENT, sandbox.id, sandbox)
    daemon.events.publish(api.CONTAINER_STARTED_EVENT, sandbox.id, sandbox)
    return sandbox.id


async def _take_back(daemon: Daemon, sandbox: Sandbox, reason: BaseException) -> None:
    """Undo a half-made sandbox. What cannot be undone now keeps its ledger entry and is tried again later."""
    reason.add_note(f"while running pod {sandbox.name}")
    try:
        await take_back(daemon, sandbox)
    except Exception as error:  # noqa: BLE001 - the first error is the one to report
        reason.add_note(f"taking it back failed as well, and is tried again: {words_of(error)}")
        daemon.janitor.take(sandbox, lambda: take_back(daemon, sandbox))


def _effects(sandbox: Sandbox, directory: str) -> list[Effect]:
    """All that making the sandbox puts into the kernel and the file system, but for what CNI records itself."""
    effects = [
        Effect("dir", directory, sandbox.id),
        Effect("mount", f"{directory}/etc", sandbox.id),
        Effect("cgroup", sandbox.cgroup, sandbox.id),
    ]
    if sandbox.options.ipc == api.POD:
        effects.append(Effect("mount", f"{directory}/shm", sandbox.id))
    if not sandbox.host_network:
        effects.append(Effect("netns", f"{directory}/ns/net", sandbox.id))
    if sandbox.userns is not None:
        effects.append(Effect("mount", f"{directory}/ns/user", sandbox.id))
    return effects


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
        userns=pod_maps(options),
        runtime=sandbox.runtime,
    )


def _namespace(kind: str, mode: api.NamespaceMode, words: dict[Any, str]) -> str:
    if mode not in words:
        raise InvalidRequest(f"namespace_options.{kind} of a sandbox cannot be {api.NamespaceMode.Name(mode)}")
    return words[mode]
