"""nodectl doctor."""

from __future__ import annotations

import argparse
from pathlib import Path

from nodeagent.config import KUBELET_ROOT, ROOT
from nodeagent.ctl.output import emit_json, table
from nodeagent.doctor import Settings, Verdict, examine


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--root", type=Path, default=ROOT, help="of the node (default: %(default)s)")
    parser.add_argument("--kubelet-root", type=Path, default=KUBELET_ROOT, help="default: %(default)s")


def run(given: argparse.Namespace) -> int:
    """Exit status 1 when no node can run here."""
    found = examine(Settings(given.root, Path(given.state), given.kubelet_root))
    if given.output == "json":
        emit_json({"checks": [check.to_json() for check in found]})
    else:
        print(table(("", "WHAT", "FOUND"), ((check.verdict.value, check.name, check.found) for check in found)))
        for check in found:
            if check.remedy:
                print(f"{check.name}: {check.remedy}")
    return 1 if any(check.verdict is Verdict.BROKEN for check in found) else 0
