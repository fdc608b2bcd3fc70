"""The ledger and the records beside it."""

from __future__ import annotations

import os
import signal
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runtime.linux import files
from runtime.linux.database import SCHEMA_VERSION, Database, DatabaseError, DatabaseFull, open_database
from runtime.linux.ledger import Effect, Ledger, read_ledger
from runtime.linux.records import Records


def keys(ledger: Ledger, **which: str) -> list[tuple[str, str]]:
    return [(effect.kind, effect.key) for effect in ledger.entries(**which)]


def test_recorded_effects_come_back_completed(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db", "crid")
    ledger.record(Effect("netns", "/run/a/net", "a", {"inode": 7}), Effect("link", "veth1", "a"))
    netns, link = sorted(ledger.entries(), key=lambda effect: effect.kind, reverse=True)
    assert (netns.kind, netns.key, netns.holder, netns.detail) == ("netns", "/run/a/net", "a", {"inode": 7})
    assert netns.owner == "crid" and netns.boot_id == files.boot_id() and netns.created > 0
    assert link.detail == {}


def test_entries_are_selected_by_kind_and_holder(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db", "crid")
    ledger.record(Effect("ip", "10.0.0.2", "a"), Effect("ip", "10.0.0.3", "b"), Effect("link", "veth1", "a"))
    assert keys(ledger, kind="ip") == [("ip", "10.0.0.2"), ("ip", "10.0.0.3")]
    assert keys(ledger, holder="a") == [("ip", "10.0.0.2"), ("link", "veth1")]
    assert keys(ledger, kind="ip", holder="b") == [("ip", "10.0.0.3")]


def test_recording_again_replaces_and_striking_is_idempotent(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db", "crid")
    ledger.record(Effect("dir", "/x", "a"))
    ledger.record(Effect("dir", "/x", "b"))
    [effect] = ledger.entries()
    assert effect.holder == "b"
    ledger.strike(effect, ("dir", "/never"))
    ledger.strike(effect)
    ledger.strike()
    assert ledger.entries() == []


def test_owners_do_not_see_each_other_but_an_inspector_sees_both(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    one, two = Ledger(path, "crid"), Ledger(path, "agent")
    one.record(Effect("dir", "/x"))
    two.record(Effect("dir", "/x"))
    one.strike(("dir", "/x"))
    assert one.entries() == []
    assert [(effect.owner, effect.key) for effect in read_ledger(path)] == [("agent", "/x")]
    one.close()
    assert keys(two) == [("dir", "/x")]
    two.close()


def test_an_unknown_kind_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db", "crid")
    with pytest.raises(ValueError, match="teapot"):
        ledger.record(Effect("dir", "/x"), Effect("teapot", "1"))
    assert ledger.entries() == []


def test_a_reboot_outlives_what_the_kernel_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = Ledger(tmp_path / "ledger.db", "crid")
    monkeypatch.setattr("runtime.linux.ledger.boot_id", lambda: "an-earlier-boot")
    ledger.record(Effect("netns", "/run/a/net"), Effect("dir", "/var/x"), Effect("ip", "10.0.0.2"))
    monkeypatch.undo()
    ledger.record(Effect("netns", "/run/b/net"))
    assert [effect.key for effect in ledger.strike_outlived()] == ["/run/a/net"]
    assert keys(ledger) == [("dir", "/var/x"), ("ip", "10.0.0.2"), ("netns", "/run/b/net")]


def test_a_record_survives_kill_9_right_after_the_call(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    pid = os.fork()
    if pid == 0:
        Ledger(path, "crid").record(Effect("dir", "/x"), Effect("dir", "/y"))
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    assert keys(Ledger(path, "crid")) == [("dir", "/x"), ("dir", "/y")]


def test_many_threads_write_at_once(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db", "crid")

    def work(name: str) -> None:
        for number in range(50):
            ledger.record(Effect("dir", f"{name}/{number}"), Effect("mount", f"{name}/{number}"))
            ledger.strike(("dir", f"{name}/{number}"))

    threads = [threading.Thread(target=work, args=(str(n),)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ledger.entries("mount")) == 200
    assert ledger.entries("dir") == []


class Refusing:
    """The ledger's file, which refuses what it is told to, and says what is about to be written."""

    def __init__(self, real: Database) -> None:
        self._real = real
        self.refused = ""
        self.before: Callable[[str], object] = lambda sql: None

    def write(self, sql: str, rows: list[tuple[object, ...]]) -> int:
        if self.refused and sql.startswith(self.refused):
            raise DatabaseFull("no room")
        self.before(sql)
        return self._real.write(sql, rows)

    def read(self, *arguments: Any) -> list[tuple[Any, ...]]:
        return self._real.read(*arguments)


@pytest.fixture
def refusing(tmp_path: Path) -> tuple[Ledger, Refusing]:
    ledger = Ledger(tmp_path / "ledger.db", "crid")
    file = Refusing(ledger._database)
    ledger._database = file  # type: ignore[assignment]
    return ledger, file


def test_what_could_not_be_struck_out_goes_with_a_later_strike(refusing: tuple[Ledger, Refusing]) -> None:
    ledger, file = refusing
    ledger.record(Effect("dir", "/x"), Effect("dir", "/y"))
    file.refused = "DELETE"
    ledger.strike(("dir", "/x"))
    file.refused = "INSERT"
    with pytest.raises(DatabaseFull):
        ledger.record(Effect("dir", "/x"))  # so it was not done again, and what stands is still what was undone
    ledger.strike()
    assert keys(ledger) == [("dir", "/y")]


def test_an_effect_that_is_done_again_is_not_struck_out_by_an_old_debt(refusing: tuple[Ledger, Refusing]) -> None:
    ledger, file = refusing
    ledger.record(Effect("dir", "/x"), Effect("dir", "/y"))
    file.refused = "DELETE"
    ledger.strike(("dir", "/x"))
    file.refused = ""
    again = threading.Thread(target=ledger.record, args=(Effect("dir", "/x", "again"),))

    def meanwhile(sql: str) -> None:
        if sql.startswith("DELETE"):
            again.start()
            again.join(0.2)  # a record that did not wait for the strike is through by then

    file.before = meanwhile
    ledger.strike(("dir", "/y"))
    again.join()
    assert [(effect.key, effect.holder) for effect in ledger.entries()] == [("/x", "again")]


def test_the_file_is_private_and_a_newer_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    Ledger(path, "crid").close()
    assert path.stat().st_mode & 0o777 == 0o600
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version={SCHEMA_VERSION + 1}")
    with pytest.raises(DatabaseError, match="written by a newer version"):
        Ledger(path, "crid")


def test_a_file_that_is_no_database_is_explained(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    path.write_bytes(b"not a database" * 100)
    with pytest.raises(DatabaseError, match=r"ledger\.db: open: "):
        Ledger(path, "crid")


def test_no_ledger_file_reads_as_empty(tmp_path: Path) -> None:
    assert read_ledger(tmp_path / "none.db") == []
    assert not (tmp_path / "none.db").exists()


def test_records_keep_documents_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    ledger, records = Ledger(path, "crid"), Records(path)
    doc = {"id": "a", "unknown": {"to": ["us"]}, "name": "ü"}
    records.put("sandbox", "a", doc)
    records.put("container", "a", {})
    records.put("sandbox", "b", {"id": "b"})
    records.delete("sandbox", "b")
    records.delete("sandbox", "never")
    ledger.close()
    assert records.get("sandbox", "a") == doc
    assert records.get("sandbox", "b") is None
    assert records.all("sandbox") == {"a": doc}
    records.close()


def test_no_room_for_an_entry_is_an_error_of_its_own(tmp_path: Path) -> None:
    """crid answers RESOURCE_EXHAUSTED then, and says what to free."""
    database = open_database(tmp_path / "ledger.db")
    try:
        database.write("PRAGMA max_page_count = 8", [()])
        with pytest.raises(DatabaseFull, match=f"disk is full; free space on the file system of {tmp_path}"):
            database.write(
                "INSERT INTO records (kind, id, version, doc) VALUES (?, ?, 1, ?)", [("k", "id", "x" * (1 << 20))]
            )
    finally:
        database.close()
