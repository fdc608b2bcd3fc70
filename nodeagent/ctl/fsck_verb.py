"""nodectl fsck: what is on the machine stands in the ledger, and what stands in the ledger is there."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from nodeagent.config import KUBELET_ROOT, ROOT
from nodeagent.ctl.output import emit_json
from nodeagent.fsck import Finding, fsck


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--root", type=Path, default=ROOT, help="of crid and the agent (default: %(default)s)")
    parser.add_argument(
        "--kubelet-root", type=Path, default=KUBELET_ROOT, help="of the agent's volumes (default: %(default)s)"
    )


def run(given: argparse.Namespace) -> int:
    """Exit status 1 when something is wrong, so that scripts can ask."""
    found: list[Finding] = fsck(given.root, Path(given.state), given.kubelet_root)
    if given.output == "json":
        emit_json({"findings": [dataclasses.asdict(each) for each in found]})
    elif found:
        print("\n".join(map(str, found)))
    else:
        print("clean: what the ledger says and what the kernel has are the same")
    return 1 if found else 0
