"""`crid reset`: ends every pod of a crid that does not run, and takes its network away.

    crid reset             pods, containers, addresses, bridge and rules go; images stay
    crid reset --purge     images too, and with them everything below root and state

What cannot be undone stays in the ledger and is named, and then nothing is purged: the ledger is how to find it again.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from cri.proto import api_pb2 as api
from cri.server.assembly import OWNER, assemble
from cri.server.calls.remove_pod_sandbox import remove_pod_sandbox
from cri.server.config import Config, from_arguments
from cri.server.listening import exclusive
from cri.server.recovery import recover
from cri.server.starting import START_ERRORS
from cri.server.tidying import tidy
from runtime.linux.ledger import Effect, read_ledger
from runtime.linux.trees import remove_tree

log = logging.getLogger("crid")

#: Effects that are files below root, which a purge removes as a whole.
_FILES = ("snapshot", "ingest", "dir")


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="crid reset", description="End all pods of a crid that does not run.")
    parser.add_argument("--root", type=Path, help="crid's root (default /var/lib/nodeagent)")
    parser.add_argument("--state", type=Path, help="crid's state (default /run/nodeagent)")
    parser.add_argument("--config", type=Path, help="crid's TOML file")
    parser.add_argument("--purge", action="store_true", help="remove images, root and state too")
    given = parser.parse_args(argv)
    try:
        config = from_arguments(given)
        with exclusive(config.root), exclusive(config.state):
            left = asyncio.run(_reset(config))
            left += [f"{each.owner}'s {each.kind} {each.key}" for each in _remaining(config)]
            if given.purge and not left:
                remove_tree(config.state)
                remove_tree(config.root)
    except START_ERRORS as error:
        print(f"crid reset: {error}", file=sys.stderr)
        return 1
    for line in left:
        print(f"crid reset: left: {line}", file=sys.stderr)
    return 1 if left else 0


async def _reset(config: Config) -> list[str]:
    """What was left, and why."""
    left = []
    async with assemble(config) as daemon:
        await recover(daemon)
        daemon.store.forget_unread()
        await tidy(daemon)
        for sandbox in list(daemon.store.sandboxes):
            try:
                await remove_pod_sandbox(daemon, api.RemovePodSandboxRequest(pod_sandbox_id=sandbox.id))
            except Exception as error:
                log.exception("sandbox %s of pod %s could not be removed", sandbox.id, sandbox.name)
                left.append(f"sandbox {sandbox.id[:13]} of pod {sandbox.name}: {error}")
        left += await daemon.cni.teardown()
    return left


def _remaining(config: Config) -> list[Effect]:
    """What still stands in the ledger, of crid and of an agent beside it, apart from files that a purge removes."""
    entries = read_ledger(config.root / "ledger.db")
    return [entry for entry in entries if entry.owner != OWNER or entry.kind not in _FILES]
