"""Leases on disk: nothing is given twice or lost, whoever else writes there."""

from __future__ import annotations

import fcntl
import ipaddress
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from cni import leases
from cni.errors import TryAgainLater
from cni.leases import LeaseStore

ONE, TWO = ("c1", "eth0"), ("c2", "eth0")
A, B = ipaddress.ip_address("10.0.0.2"), ipaddress.ip_address("fd00::2")


@pytest.fixture
def store(tmp_path: Path) -> LeaseStore:
    return LeaseStore(tmp_path / "data", "net")


def test_the_files_are_those_of_the_reference_plugin(store: LeaseStore, tmp_path: Path) -> None:
    with store.locked():
        assert store.reserve(A, ONE) and store.reserve(B, ONE)
        store.set_last(0, ipaddress.ip_address("10.0.0.254"))
        store.set_last(0, A)
    directory = tmp_path / "data" / "net"
    assert (directory / "10.0.0.2").read_bytes() == (directory / "fd00::2").read_bytes() == b"c1\r\neth0"
    assert (directory / "last_reserved_ip.0").read_text() == "10.0.0.2"
    assert {path.name for path in directory.iterdir()} == {"10.0.0.2", "fd00::2", "last_reserved_ip.0", "lock"}
    with store.locked():
        assert store.last(0) == A and store.last(1) is None
        assert set(store.held_by(ONE)) == {A, B} and store.held_by(TWO) == []


def test_an_address_has_one_owner(store: LeaseStore) -> None:
    with store.locked():
        assert store.reserve(A, ONE)
        assert not store.reserve(A, TWO) and not store.is_free(A)
        assert store.release(TWO) == [] and store.held_by(ONE) == [A]
        assert store.release(ONE) == [A] and store.is_free(A)
        assert store.reserve(A, TWO)


def test_what_others_write_is_seen(store: LeaseStore, tmp_path: Path) -> None:
    with store.locked():
        store.reserve(A, ONE)
    directory = tmp_path / "data" / "net"
    (directory / "10.0.0.3").write_bytes(b"c2\r\neth0")
    (directory / "10.0.0.4").write_bytes(b"c3")
    (directory / "10.0.0.5").write_bytes(b"")
    (directory / "10.0.0.2").unlink()
    with store.locked():
        assert store.is_free(A) and not store.is_free(ipaddress.ip_address("10.0.0.3"))
        assert store.owners() == {TWO, ("c3", ""), ("", "")}
        assert store.release(("c3", "eth0")) == [ipaddress.ip_address("10.0.0.4")], "the format before version 0.7"


def test_a_memory_that_is_wrong_gives_nothing_twice(store: LeaseStore, tmp_path: Path) -> None:
    """Two writers within one grain of the directory's time stamp."""
    with store.locked():
        path = tmp_path / "data" / "net" / "10.0.0.2"
        path.write_bytes(b"c2\r\neth0")
        assert store.is_free(A) and not store.reserve(A, ONE)
        assert not store.is_free(A) and store.held_by(TWO) == [A]


def test_a_file_left_half_way_is_released_with_its_owner(store: LeaseStore, tmp_path: Path) -> None:
    directory = tmp_path / "data" / "net"
    with store.locked():
        (directory / ".123.456").write_bytes(b"c1\r\neth0")
        os.link(directory / ".123.456", directory / "10.0.0.2")
    with LeaseStore(tmp_path / "data", "net").locked():
        pass
    fresh = LeaseStore(tmp_path / "data", "net")
    with fresh.locked():
        assert fresh.release(ONE) == [A]
    assert {path.name for path in directory.iterdir()} == {"lock"}


def test_a_directory_that_was_removed_is_made_again(store: LeaseStore, tmp_path: Path) -> None:
    with store.locked():
        store.reserve(A, ONE)
    subprocess.run(["rm", "-r", tmp_path / "data"], check=True, timeout=10)
    with store.locked():
        assert store.is_free(A) and store.reserve(A, TWO)
    store.close()


def test_a_lock_that_is_never_let_go_is_an_error(
    store: LeaseStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "LOCK_SECONDS", 0.05)
    with store.locked():
        pass
    with open(tmp_path / "data" / "net" / "lock") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(TryAgainLater, match=r"find it with: fuser .*/net/lock"), store.locked():
            pass
    with store.locked():
        pass


def test_threads_and_processes_take_turns(store: LeaseStore, tmp_path: Path) -> None:
    """Everybody gets other addresses: two threads here and two processes that know nothing of our memory."""
    script = f"""
import ipaddress, sys
from cni.leases import LeaseStore
take(LeaseStore({str(tmp_path / "data")!r}, "net"), sys.argv[1])
"""
    source = """
def take(store, who):
    for number in range(40):
        with store.locked():
            free = next(a for a in (ipaddress.ip_address(0x0A000002 + n) for n in range(1000)) if store.is_free(a))
            assert store.reserve(free, (f"{who}.{number}", "eth0"))
"""
    processes = [
        subprocess.Popen([sys.executable, "-c", "import ipaddress\n" + source + script, who]) for who in ("p1", "p2")
    ]
    scope = {"ipaddress": ipaddress}
    exec(source, scope)
    threads = [threading.Thread(target=scope["take"], args=(store, who)) for who in ("t1", "t2")]  # type: ignore[arg-type]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [process.wait(60) for process in processes] == [0, 0]
    with store.locked():
        assert len(store.addresses()) == len(store.owners()) == 160
