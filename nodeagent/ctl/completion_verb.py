"""nodectl completion: what a shell must evaluate to complete nodectl's words."""

from __future__ import annotations

import argparse

from argcomplete.shell_integration import shellcode

from nodeagent.ctl.session import Session

SHELLS = ("bash", "zsh", "fish")


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=SHELLS)


async def run(session: Session, given: argparse.Namespace) -> int:
    session.output.line(shellcode(["nodectl"], shell=given.shell))
    return 0
