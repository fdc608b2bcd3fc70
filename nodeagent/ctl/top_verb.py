"""nodectl top: stats that renew themselves, until Ctrl-C."""

from __future__ import annotations

import argparse

from nodeagent.ctl import stats_verb
from nodeagent.ctl.session import Session


def arguments(parser: argparse.ArgumentParser) -> None:
    stats_verb.arguments(parser)


async def run(session: Session, given: argparse.Namespace) -> int:
    given.watch = True
    return await stats_verb.run(session, given)
