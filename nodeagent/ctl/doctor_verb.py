"""nodectl doctor. Exit status 1 when pods cannot run here."""

from __future__ import annotations

import argparse

from nodeagent.ctl import colours, places
from nodeagent.ctl.output import TABLE, Column
from nodeagent.ctl.session import Session
from nodeagent.doctor import FAIL, OK, Places, examine

COLUMNS = [
    Column("", "verdict", style=colours.state),
    Column("AREA", "area"),
    Column("WHAT", "subject"),
    Column("FOUND", "found"),
    Column("FOLLOWS", "follows"),
    Column("REMEDY", "remedy"),
]


def arguments(parser: argparse.ArgumentParser) -> None:
    places.arguments(parser)
    parser.add_argument("-q", "--quiet", action="store_true", help="only what is not well")


async def run(session: Session, given: argparse.Namespace) -> int:
    root, _ = await places.root_and_state(session, given)
    found = await examine(Places(session.address, session.agent, root, given.kubelet_root))
    shown = [each for each in found if each.verdict != OK or not given.quiet]
    columns = COLUMNS if session.output.format != TABLE else COLUMNS[:4]
    session.output.items("DoctorFindings", columns, [each.to_json() for each in shown])
    if session.output.format == TABLE:
        for each in shown:
            if each.verdict != OK:
                session.output.line(f"{each.verdict}: {each.subject}: {each.follows}; what to do: {each.remedy}")
    return 1 if any(each.verdict == FAIL for each in found) else 0
