"""The demo: a node of its own with one pod, brought up from nothing, of which nothing is left at the end.

It needs no registry: its image is made of this machine's busybox. All its files lie below one directory, all its
sockets below another, and its bridge and subnet belong to nobody else, so it runs beside any other node.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import ipaddress
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

from nodeagent.up.node import LOOK, RunningNode, Trouble
from nodeagent.up.places import Places
from nodeagent.up.show import Show
from runtime.linux.exclusive import locked
from runtime.linux.trees import remove_tree

BASE = Path("/var/lib/nodeagent-demo")
STATE = Path("/run/nodeagent-demo")
IMAGE = "localhost/nodeagent-demo:1"
START_PATIENCE = 90.0
END_PATIENCE = 60.0
ROUTES = Path("/proc/net/route")


def demo_places(base: Path, state: Path) -> Places:
    """Everything of the demo, from its two directories."""
    return Places(
        root=base / "root",
        state=state,
        manifests=base / "manifests",
        kubelet_root=base / "kubelet",
        log_root=base / "pods",
        logs=base / "log",
        csi_data=base / "csi",
        config=base / "crid.toml",
        agent_options=("--cgroup-root", f"/nodeagent-demo-{token_of(base)[:8]}"),
    )


@contextlib.contextmanager
def owned(base: Path) -> Iterator[None]:
    """Make the demo's directory and hold it: a second demo must not end the first one. Raises Taken, OSError."""
    base.mkdir(mode=0o700, parents=True, exist_ok=True)
    with locked(base / "demo.lock", "give this one another --demo-dir"):
        yield


def prepare(base: Path, places: Places) -> None:
    """The demo's configuration. Raises OSError, Trouble."""
    for path in (places.manifests, base / "net.d"):
        path.mkdir(mode=0o755, exist_ok=True)
    token = token_of(base)
    assert places.config is not None
    places.config.write_text(
        f'[network]\nconf_dir = "{base}/net.d"\ncache_dir = "{base}/cni"\n'
        f'bridge = "na{token[:8]}"\nsubnet = "{free_subnet(int(token[8:12], 16))}"\n'
    )


def token_of(base: Path) -> str:
    """Hexadecimal digits that no other demo has."""
    return hashlib.sha256(str(base).encode()).hexdigest()


def free_subnet(start: int) -> ipaddress.IPv4Network:
    """A /24 of 10.64.0.0/10 that no route of this host leads into; the search begins at the `start`-th."""
    routes = [route for route in _routes() if route.prefixlen]
    for offset in range(256):
        number = (start + offset) % (64 * 256)
        subnet = ipaddress.ip_network(f"10.{64 + number // 256}.{number % 256}.0/24")
        assert isinstance(subnet, ipaddress.IPv4Network)
        if not any(subnet.overlaps(route) for route in routes):
            return subnet
    raise Trouble("no free subnet below 10.64.0.0/10 for the demo; use `nodeagent up` with a configuration")


def _routes() -> list[ipaddress.IPv4Network]:
    """proc_net_route: destination and mask are hexadecimal in host byte order."""
    found = []
    for line in ROUTES.read_text().splitlines()[1:]:
        fields = line.split()
        destination, mask = (int.from_bytes(bytes.fromhex(fields[index])[::-1]) for index in (1, 7))
        found.append(ipaddress.IPv4Network((destination, mask.bit_count())))
    return found


def put_manifest(places: Places) -> Path:
    manifest = places.manifests / "demo.yaml"
    manifest.write_bytes(resources.files("nodeagent.up").joinpath("demo.yaml").read_bytes())
    return manifest


async def running_pod(node: RunningNode) -> dict[str, Any]:
    """The demo pod once it runs. Raises Trouble, with what keeps it from running."""
    deadline = time.monotonic() + START_PATIENCE
    status: dict[str, Any] = {}
    while time.monotonic() < deadline:
        for pod in await node.pods():
            status = pod["status"]
            if status["phase"] == "Running" and all(each["ready"] for each in status["containerStatuses"]):
                return pod
        await asyncio.sleep(LOOK)
    raise Trouble(f"the demo pod does not run after {START_PATIENCE:.0f} s: {why(status)}")


def why(status: dict[str, Any]) -> str:
    told = [status["message"]] if status.get("message") else []
    for each in status.get("containerStatuses", []):
        waiting = each["state"].get("waiting")
        if waiting:
            told.append(f"{each['name']}: {waiting['reason']} {waiting.get('message', '')}".strip())
    return "; ".join(told) or "the agent says nothing of it"


async def answering(url: str) -> str:
    """What the pod's server says, once it does. Raises Trouble."""
    deadline = time.monotonic() + 15.0
    problem = ""
    while time.monotonic() < deadline:
        try:
            return await asyncio.to_thread(_fetch, url)
        except (urllib.error.URLError, OSError) as error:
            problem = str(error)
        await asyncio.sleep(LOOK)
    raise Trouble(f"{url} does not answer: {problem}")


def _fetch(url: str) -> str:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=2.0) as answer:
        return str(answer.read(4096).decode(errors="replace"))


async def take_away(base: Path, places: Places, node: RunningNode, show: Show) -> None:
    """The pod, the daemons, and everything that the demo has made.

    Raises OSError for what cannot be removed, Trouble for what was not undone as a node undoes it but by force.
    """
    left: list[str] = []
    (places.manifests / "demo.yaml").unlink(missing_ok=True)
    if any(service.name == "nodeagent" for service in node.supervisor.services):
        with show.step("pod ended") as said:
            left = await node.all_gone(END_PATIENCE)
            said.extend(left)
    await node.stop_daemons()
    with show.step("traces removed"):
        await node.crid_verb("reset", "--purge")
        await asyncio.to_thread(remove_tree, base)
        await asyncio.to_thread(remove_tree, places.state)
    if left:
        raise Trouble(f"taken away by force, as it had not gone after {END_PATIENCE:.0f} s: {'; '.join(left)}")
