"""Proof that a crid has left nothing of its pods: not in its lists, its ledger, the kernel's tables or /proc."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from nodeagent.fsck import fsck
from runtime.linux.ledger import read_ledger
from tests.support.crid import Crid


async def fsck_is_silent(crid: Crid) -> None:
    """In the end: fsck reads ledger and kernel one after the other, and a crid that tidies changes both meanwhile."""
    for _ in range(100):
        found = fsck(crid.root, crid.state)
        if not found:
            return
        await asyncio.sleep(0.05)
    raise AssertionError("\n".join(map(str, found)))


async def no_entry_is_left(crid: Crid) -> None:
    """Links of deleted pods go half a second later than their pods."""
    for _ in range(100):
        entries = read_ledger(crid.root / "ledger.db")
        left = [f"{entry.kind} {entry.key}" for entry in entries if entry.holder and ":" not in entry.holder]
        if not left:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"still in the ledger: {left}")


async def nothing_is_left(crid: Crid) -> None:
    assert (await crid.cri.ListPodSandbox()).items == []
    assert (await crid.cri.ListContainers()).containers == []
    await fsck_is_silent(crid)
    await no_entry_is_left(crid)
    assert list((crid.state / "sandboxes").iterdir()) == []
    assert str(crid.base) not in Path("/proc/self/mountinfo").read_text()
    sandboxes = str(crid.state / "sandboxes")
    assert not [pid for pid in os.listdir("/proc") if pid.isdigit() and sandboxes in command_line(pid)]


def command_line(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return ""
