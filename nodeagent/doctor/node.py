"""The node as it is now: daemons that answer, networks that are configured, drivers that are registered."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil

from cri.client import CriClient, CriError
from csi.client import CsiError, RegistrationClient
from nodeagent.api.client import AgentRefused, AgentUnreachable, describe, get
from nodeagent.config import KUBELET_ROOT, ROOT
from nodeagent.doctor.finding import OK, Finding, judge

SECONDS = 3.0
CNI_SUFFIXES = (".conf", ".conflist", ".json")


@dataclass(frozen=True, slots=True)
class Places:
    """Where the parts of the node are; `cri` is an address, `agent` the path of a socket."""

    cri: str
    agent: Path
    root: Path = ROOT
    kubelet_root: Path = KUBELET_ROOT
    cni_conf: Path = Path("/etc/cni/net.d")
    cni_bin: Path = Path("/opt/cni/bin")


async def examine(places: Places) -> list[Finding]:
    runtime, (agent, health) = await asyncio.gather(_runtime(places), _agent(places))
    # An agent that answers knows best where its drivers are.
    places = replace(places, kubelet_root=Path(health.get("kubeletRoot", places.kubelet_root)))
    return [*runtime, agent, _neighbours(places), *_networks(places), *await _drivers(places)]


async def _runtime(places: Places) -> list[Finding]:
    async with CriClient(places.cri) as cri:
        try:
            version = await cri.Version(timeout=SECONDS)
            status = await cri.Status(verbose=True, timeout=SECONDS)
        except CriError as error:
            follows, remedy = "no pod runs", "nodeagent up, or systemctl start crid"
            words = "nobody answers" if error.code == "UNAVAILABLE" else error.details
            return [judge("node", "runtime", False, f"{places.cri}: {words}", follows, remedy)]
    found = [Finding("node", "runtime", OK, f"{version.runtime_name} {version.runtime_version} on {places.cri}")]
    for condition in status.status.conditions:
        words = condition.message or ("ready" if condition.status else condition.reason)
        remedy = "see the runtime's log, and the configuration in /etc/cni/net.d"
        found.append(judge("node", condition.type, condition.status, words, "pods cannot start", remedy, fatal=True))
    return [*found, *_nri(status.info.get("nri", ""))]


def _nri(info: str) -> Iterator[Finding]:
    """NRI's plugins, of a runtime that tells them: ours."""
    if info:
        nri = json.loads(info)
        words = (
            nri["trouble"] or ", ".join(nri["plugins"]) or f"no plugin; they connect to {nri['socket'] or 'nothing'}"
        )
        yield judge("node", "NRI", not nri["trouble"], words, "its plugins have no say", "set [nri] socket, or disable")


async def _agent(places: Places) -> tuple[Finding, dict[str, Any]]:
    """And what it says of itself."""
    try:
        health: dict[str, Any] = await asyncio.to_thread(get, places.agent, "/healthz", timeout=SECONDS)
    except (AgentUnreachable, AgentRefused) as error:
        follows, remedy = "manifests are not acted upon", "nodeagent up, or systemctl start nodeagent"
        return judge("node", "agent", False, str(error), follows, remedy), {}
    well = bool(health.get("healthy"))
    return judge("node", "agent", well, describe(health), "pods are not looked after", "see its log"), health


def _neighbours(places: Places) -> Finding:
    """A kubelet has the same directories, and takes our pods for leftovers of its own."""
    names = {process.info["name"] for process in psutil.process_iter(["name"])}
    runtimes = sorted(names & {"containerd", "crio", "dockerd"})
    kubelet = "kubelet" in names and places.kubelet_root.resolve() == KUBELET_ROOT.resolve()
    found = f"beside this node: {', '.join(runtimes)}" if runtimes else "no other node software"
    return judge(
        "node", "neighbours", not kubelet, "a kubelet runs here" if kubelet else found,
        f"it has {places.kubelet_root} too, and clears away what it does not know",
        "stop it, or give the agent another --kubelet-root",
    )  # fmt: skip


def _networks(places: Places) -> Iterator[Finding]:
    """An empty directory is well: crid then has a bridge network of its own."""
    files = sorted(each for each in _listed(places.cni_conf) if each.suffix in CNI_SUFFIXES)
    if not files:
        yield Finding("node", "CNI", OK, f"nothing in {places.cni_conf}: the runtime's default network is used")
    for file in files:
        yield _network(file, places)


def _network(file: Path, places: Places) -> Finding:
    subject = f"CNI {file.name}"
    try:
        document = json.loads(file.read_text())
        plugins = document.get("plugins", [document])
        types = [str(each["type"]) for each in plugins]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        remedy = "correct the file, or move it away"
        return judge("node", subject, False, f"cannot be read: {error}", "the runtime skips it", remedy)
    built_in = {"bridge", "host-local", "loopback", "portmap"}
    missing = [each for each in types if each not in built_in and not (places.cni_bin / each).exists()]
    return judge(
        "node", subject, not missing, f"network {document.get('name', '?')}: {', '.join(types)}",
        f"no plugin {', '.join(missing)} in {places.cni_bin}: pods get no network", "install the plugins",
    )  # fmt: skip


async def _drivers(places: Places) -> list[Finding]:
    sockets = [each for each in _listed(places.kubelet_root / "plugins_registry") if each.is_socket()]
    if not sockets:
        return [Finding("node", "CSI", OK, "no driver is registered; pods with CSI volumes wait for theirs")]
    return list(await asyncio.gather(*map(_driver, sockets)))


async def _driver(socket: Path) -> Finding:
    client = RegistrationClient(socket, timeout=SECONDS)
    try:
        plugin = await client.info()
    except CsiError as error:
        remedy = f"start the driver, or remove {socket}"
        return judge("node", f"plugin {socket.name}", False, str(error), "its volumes or devices wait", remedy)
    finally:
        await client.close()
    return Finding("node", f"{plugin.type} {plugin.name}", OK, f"versions {', '.join(plugin.versions)} at {socket}")


def _listed(directory: Path) -> list[Path]:
    try:
        return sorted(directory.iterdir())
    except OSError:
        return []
