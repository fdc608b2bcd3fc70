"""`nodeagent up`: runtime, agent and, with --demo, a pod, in the foreground until Ctrl-C."""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nodeagent.config import STATE, add_arguments, from_arguments
from nodeagent.doctor import FAIL, examine
from nodeagent.doctor import Places as DoctorsPlaces
from nodeagent.up import demo
from nodeagent.up.node import RunningNode, Trouble
from nodeagent.up.places import Places
from nodeagent.up.service import StartFailed
from nodeagent.up.show import Show
from nodeagent.up.supervisor import Interrupted, Supervisor

TRY = ("nodectl pods", "nodectl logs -f demo -c web", "nodectl exec -it demo -c clock -- sh", "nodectl stats")
CSI_DATA = Path("/var/lib/csi-hostpath")


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="nodeagent up", description="A node in the foreground, until Ctrl-C.")
    parser.add_argument("--demo", action="store_true", help="a node of its own with a demo pod; leaves nothing behind")
    parser.add_argument("--demo-dir", type=Path, default=demo.BASE, help="of the demo (default: %(default)s)")
    parser.add_argument("--config", type=Path, help="TOML file of crid")
    parser.add_argument("--csi-hostpath", action="store_true", help="start the hostpath CSI driver too")
    parser.add_argument("--force", action="store_true", help="even when doctor says that no node can run here")
    add_arguments(parser)
    given = parser.parse_args(argv)
    show = Show()
    try:
        places = places_of(given)
        check_host(given, places, show)
        return asyncio.run(_up_demo(given, show) if given.demo else _up(given, places, show))
    except (Trouble, StartFailed, OSError, ValueError) as error:
        show.warn(str(error))
        return 1


def check_host(given: argparse.Namespace, places: Places, show: Show) -> None:
    """Raises Trouble for what would only fail later and less clearly."""
    if os.geteuid() != 0:
        raise Trouble("a node makes namespaces, mounts and cgroups: run it as root")
    with show.step("host") as said:
        looked_at = DoctorsPlaces(str(places.cri_socket), places.agent_socket, places.root, places.kubelet_root)
        broken = [finding for finding in asyncio.run(examine(looked_at)) if finding.verdict == FAIL]
        said.append("not fit for a node" if broken else "fit for a node")
    for finding in broken:
        show.warn(f"{finding.subject}: {finding.found}; {finding.remedy}")
    if broken and not given.force:
        raise Trouble("no node can run on this host as it is; see: nodectl doctor (or try --force)")


def places_of(given: argparse.Namespace) -> Places:
    """Raises ValueError."""
    config = from_arguments(given)
    passed_on = {"cgroup-root": given.cgroup_root, "log-size": given.log_size, "log-files": given.log_files}
    return Places(
        root=config.root,
        state=config.state,
        manifests=config.manifests,
        kubelet_root=config.kubelet_root,
        log_root=config.log_root,
        logs=config.root / "log",
        csi_data=CSI_DATA,
        config=given.config.absolute() if given.config else None,
        cri=config.cri if given.cri else "",
        node_name=given.node_name,
        agent_options=tuple(f"--{name}={value}" for name, value in passed_on.items()),
    )


async def _up(given: argparse.Namespace, places: Places, show: Show) -> int:
    async with Supervisor(show.warn) as supervisor:
        node = RunningNode(places, supervisor, show)
        try:
            if not places.cri:
                await node.start_runtime()
            if given.csi_hostpath:
                await node.start_csi_driver()
            await node.start_agent()
            _tell(places, show)
            await supervisor.stop_wanted.wait()
        except Interrupted:
            show.line("interrupted")
        await node.stop_daemons()
    show.line("Pods go on without their daemons: `nodeagent up` takes them over again, `nodeagent down` ends them.")
    return 0


def _tell(places: Places, show: Show) -> None:
    show.line()
    show.line(f"The node runs. Put pod manifests into {places.manifests}; logs of the daemons are in {places.logs}.")
    _tell_commands(places, ("nodectl pods", "nodectl doctor"), show)
    show.line("Ctrl-C stops the daemons; pods go on.")


def _tell_commands(places: Places, commands: Sequence[str], show: Show) -> None:
    if shutil.which("nodectl") is None:
        show.line(f"  export PATH={Path(sys.executable).parent}:$PATH")
    if places.state != STATE:
        show.line(f"  export NODEAGENT_STATE={places.state}")
    for command in commands:
        show.line(f"  {command}")


async def _up_demo(given: argparse.Namespace, show: Show) -> int:
    base = given.demo_dir.absolute()
    state = demo.STATE if base == demo.BASE else base / "run"
    places = demo.demo_places(base, state)
    status = 0
    with demo.owned(base):
        demo.prepare(base, places)
        async with Supervisor(show.warn) as supervisor:
            node = RunningNode(places, supervisor, show)
            try:
                await _bring_up(places, node, show)
                await supervisor.stop_wanted.wait()
            except Interrupted:
                show.line("interrupted")
            except (Trouble, StartFailed) as error:
                show.warn(str(error))
                status = 1
            show.line()
            await demo.take_away(base, places, node, show)
    show.line("The demo has left nothing behind.")
    return status


async def _bring_up(places: Places, node: RunningNode, show: Show) -> None:
    with show.step("demo image") as said:
        await node.crid_verb("import", "--busybox", demo.IMAGE)
        said.append(f"{demo.IMAGE}, made of /bin/busybox")
    await node.start_runtime()
    await node.start_csi_driver()
    await node.start_agent()
    manifest = demo.put_manifest(places)
    async with node.supervisor.interruptible():
        with show.step("demo pod") as said:
            pod = await demo.running_pod(node)
            said.append(f"{pod['metadata']['namespace']}/{pod['metadata']['name']} from {manifest}")
        url = f"http://{pod['status']['podIP']}/"
        with show.step("its web server") as said:
            await demo.answering(url)
            said.append(url)
    _tell_demo(places, pod, url, show)


def _tell_demo(places: Places, pod: dict[str, Any], url: str, show: Show) -> None:
    names = ", ".join(each["name"] for each in pod["spec"]["containers"])
    show.line()
    show.line(f"A pod with an address of its own runs: {pod['metadata']['name']} ({names}) at {url}")
    show.line(f"  sockets   {places.cri_socket} (CRI v1)   {places.agent_socket} (status, HTTP)")
    show.line(f"  logs      {places.logs} (daemons)   {places.log_root} (pods)")
    show.line("Try, in another terminal:")
    _tell_commands(places, (*TRY, f"curl {url}"), show)
    show.line(f"  or edit {places.manifests / 'demo.yaml'}: the pod follows")
    show.line()
    show.line("Ctrl-C ends the demo and leaves nothing behind.")
