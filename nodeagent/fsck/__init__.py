"""Compares the ledger with the kernel and the disk: what leaked, what is missing, what belongs to nobody.

    finding.py   one discrepancy, with its remedy
    entries.py   the ledger, read before and after the kernel
    kernel.py    the kernel and the disk, read once
    checks.py    pure functions from both to findings, one for each kind of effect

It only reads, needs no daemon, and is right beside running ones: an entry is written before its effect and struck after
it is undone, so what the kernel has must be in the ledger as it was before or after the kernel was read.
"""

from __future__ import annotations

from pathlib import Path

from nodeagent.fsck.checks import CHECKS
from nodeagent.fsck.entries import Entries, read_entries
from nodeagent.fsck.finding import Finding
from nodeagent.fsck.kernel import Places, read_kernel

__all__ = ["Finding", "fsck"]


def fsck(root: Path, state: Path, kubelet_root: Path | None = None) -> list[Finding]:
    """Every discrepancy of one node, worst first; blocks for as long as nft(8) takes. Raises OSError, DatabaseError.

    `root` and `state` are crid's, `kubelet_root` the agent's (None: the agent's volumes are not looked at).
    """
    places = Places(root.resolve(), state.resolve(), kubelet_root.resolve() if kubelet_root else None)
    before = read_entries(root)
    kernel = read_kernel(places, before)
    entries = Entries(before, read_entries(root))
    found = [finding for check in CHECKS for finding in check(entries, kernel, places)]
    return sorted(found, key=Finding.rank)
