"""What an interrupted checkpoint has left is removed where that is possible, and keeps its place in the ledger else."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from cri.server.checkpoint import workplace
from runtime.linux.ledger import Effect, Ledger


async def test_one_that_cannot_be_removed_costs_no_other_one_and_no_start(tmp_path: Path) -> None:
    (tree := tmp_path / "dump-1" / "images").mkdir(parents=True)
    (tree / "pages").write_text("half")
    (partial := tmp_path / ".one.tar.1234").write_text("half")
    (tmp_path / "client").write_text("was a directory")
    gone, waits, unread = tmp_path / "client" / ".two.tar.5678", tmp_path / "c1", tmp_path / "c2"
    stuck = tmp_path / ("x" * 300)  # ENAMETOOLONG, for any error that a client's file system may have
    ledger = Ledger(tmp_path / "ledger.db", "test")
    try:
        for path in (stuck, tree.parent, partial, gone, waits, unread):
            ledger.record(Effect("dir", str(path), f"{workplace.HOLDER}{path.name}"))
        ledger.record(Effect("dir", str(tmp_path / "sandbox"), "a sandbox's"))
        containers = [SimpleNamespace(id="c1", started_at=0)]
        daemon: Any = SimpleNamespace(ledger=ledger, store=SimpleNamespace(containers=containers, unread={"c2"}))
        for entry in workplace.leftovers(daemon):
            await workplace.remove_leftover(daemon, entry)
        assert not tree.parent.exists() and not partial.exists()
        kept = {str(path) for path in (stuck, waits, unread, tmp_path / "sandbox")}
        assert {entry.key for entry in ledger.entries()} == kept
    finally:
        ledger.close()
