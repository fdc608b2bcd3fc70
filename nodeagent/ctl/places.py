"""Where this node keeps its things: what is given, or else what the runtime says of itself, or else the defaults."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from cri.client import CriError
from nodeagent.config import KUBELET_ROOT, ROOT, STATE
from nodeagent.ctl.session import Session

SECONDS = 3.0


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--root", type=Path, help=f"of the node (default: as crid says, or {ROOT})")
    parser.add_argument("--kubelet-root", type=Path, default=KUBELET_ROOT, help="default: %(default)s")


async def root_and_state(session: Session, given: argparse.Namespace) -> tuple[Path, Path]:
    """crid's. The state of another runtime is not ours, so that the defaults hold."""
    told = await _told(session)
    root = given.root or Path(told.get("root", ROOT))
    return root, Path(told.get("state", STATE))


async def _told(session: Session) -> dict[str, Any]:
    try:
        info = (await session.cri.Status(verbose=True, timeout=SECONDS)).info
    except CriError:
        return {}
    try:
        config = json.loads(info.get("config", "{}"))
    except ValueError:
        return {}
    return {key: config[key] for key in ("root", "state") if isinstance(config, dict) and key in config}
