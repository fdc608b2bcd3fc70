"""nodectl fsck: what is on the machine stands in the ledger, and what stands in the ledger is there."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

from nodeagent.ctl import places
from nodeagent.ctl.complaint import Complaint
from nodeagent.ctl.output import JSON, Column
from nodeagent.ctl.session import Session
from nodeagent.fsck import fsck

COLUMNS = [
    Column("PROBLEM", "problem", style=lambda _: "red"),
    Column("KIND", "kind"),
    Column("KEY", "key"),
    Column("HOLDER", "holder"),
    Column("REMEDY", "remedy"),
]


def arguments(parser: argparse.ArgumentParser) -> None:
    places.arguments(parser)
    parser.add_argument("--state", type=Path, help="of crid (default: as crid says)")


async def run(session: Session, given: argparse.Namespace) -> int:
    """Exit status 1 when something is wrong, so that scripts can ask."""
    root, told = await places.root_and_state(session, given)
    if not (root / "ledger.db").exists():
        raise Complaint(f"no ledger in {root}: no node has run there; name its root with --root")
    found = await asyncio.to_thread(fsck, root, given.state or told, given.kubelet_root)
    if found or session.output.format == JSON:
        session.output.items("FsckFindings", COLUMNS, [each.to_json() for each in found])
    else:
        session.output.line("clean: what the ledger says and what the kernel has are the same")
    return 1 if found else 0
