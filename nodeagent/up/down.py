"""`nodeagent down`: ends every pod of this node gracefully, then takes its network away; with --purge everything.

It runs the node once more with an empty manifest directory, so pods end as they would when their manifests go: hooks,
grace periods and volumes included. What is left after that is ended by `crid reset`.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from nodeagent.config import add_arguments
from nodeagent.up.node import RunningNode, Trouble
from nodeagent.up.places import Places
from nodeagent.up.service import StartFailed
from nodeagent.up.show import Show
from nodeagent.up.supervisor import Interrupted, Supervisor
from nodeagent.up.up import places_of


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="nodeagent down", description="End all pods of this node; its daemons must not run."
    )
    parser.add_argument("--purge", action="store_true", help="remove images, root and state too")
    parser.add_argument("--config", type=Path, help="TOML file of crid")
    parser.add_argument("--csi-hostpath", action="store_true", help="the node ran with the hostpath CSI driver")
    parser.add_argument("--patience", type=float, default=120.0, help="seconds for pods to end (default: %(default)s)")
    add_arguments(parser)
    given = parser.parse_args(argv)
    show = Show()
    try:
        if os.geteuid() != 0:
            raise Trouble("run it as root")
        return asyncio.run(_down(places_of(given), given, show))
    except (Trouble, StartFailed, OSError, ValueError) as error:
        show.warn(str(error))
        return 1


async def _down(places: Places, given: argparse.Namespace, show: Show) -> int:
    async with Supervisor(show.warn) as supervisor:
        node = RunningNode(places, supervisor, show)
        try:
            with tempfile.TemporaryDirectory(prefix="nodeagent-down-") as empty:
                left = await _end_pods(node, given, Path(empty), show)
        except Interrupted:
            raise Trouble("interrupted; some pods may be left: `nodeagent down` again ends them") from None
        await node.stop_daemons()
        if not places.cri:
            with show.step("network removed"):
                await node.crid_verb("reset", *(("--purge",) if given.purge else ()))
    if left:
        what_now = "`nodeagent down` again goes on with it" if places.cri else "it was ended by force"
        raise Trouble(f"not undone after {given.patience:g} s: {'; '.join(left)}; {what_now}")
    return 0


async def _end_pods(node: RunningNode, given: argparse.Namespace, empty: Path, show: Show) -> list[str]:
    """What is left of them. Raises Trouble, StartFailed, Interrupted."""
    if not node.places.cri:
        await node.start_runtime()
    if given.csi_hostpath:
        await node.start_csi_driver()
    await node.start_agent(manifests=empty)
    async with node.supervisor.interruptible():
        with show.step("pods ended") as said:
            left = await node.all_gone(given.patience)
            said.extend(["not all of them"] if left else [])
    return left
