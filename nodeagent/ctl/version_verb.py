"""nodectl version: ours, the runtime's, and whether the agent is well."""

from __future__ import annotations

import argparse
from importlib import metadata

from cri.client import CriError
from nodeagent.api.client import AgentUnreachable, describe
from nodeagent.ctl.output import Column, Document
from nodeagent.ctl.session import CALL_SECONDS, Session, explain

COLUMNS = [Column("WHAT", "what"), Column("VERSION", "version"), Column("SOCKET", "socket"), Column("STATE", "state")]


def arguments(parser: argparse.ArgumentParser) -> None:
    """None of its own."""


async def run(session: Session, given: argparse.Namespace) -> int:
    ours = metadata.version("nodeagent")
    rows: list[Document] = [{"what": "nodectl", "version": ours}, await _runtime(session), await _agent(session)]
    session.output.items("Versions", COLUMNS, rows)
    return 0


async def _runtime(session: Session) -> Document:
    row: Document = {"what": "runtime", "socket": session.address}
    try:
        version = await session.cri.Version(timeout=CALL_SECONDS)
        status = (await session.cri.Status(timeout=CALL_SECONDS)).status
    except CriError as error:
        return row | {"state": f"does not answer: {explain(error, session.address)}"}
    states = (f"{each.type}: {'yes' if each.status else each.message or 'no'}" for each in status.conditions)
    shown = f"{version.runtime_name} {version.runtime_version} (CRI {version.runtime_api_version})"
    return row | {"version": shown, "state": ", ".join(states)}


async def _agent(session: Session) -> Document:
    row: Document = {"what": "agent", "socket": str(session.agent)}
    try:
        health = await session.ask_agent("/healthz")
    except AgentUnreachable as error:
        return row | {"state": f"does not answer: {error.__cause__}"}
    return row | {"state": ("well" if health.get("healthy") else "not well") + f": {describe(health)}"}
