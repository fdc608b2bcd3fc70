"""`nodeagent fsck`: the same as `nodectl fsck`, for where only the agent's command is installed."""

from __future__ import annotations

from collections.abc import Sequence

from nodeagent.ctl.main import main as nodectl


def main(argv: Sequence[str]) -> int:
    return nodectl(["fsck", *argv])
